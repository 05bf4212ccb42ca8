"""re6st-registry as a user meets it: init, serving, what it says when something is wrong, signals."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from ipaddress import IPv6Network
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.cli.registry import init
from re6st.cli.registry import main as registry
from re6st.cli.registry.config import LOG_FILE
from re6st.cli.registry.init import FFDHE2048, OPTIONS
from re6st.core.machine.packet_rules import SEGMENT
from re6st.core.prefix import serial_of_network
from re6st.keys import pki
from re6st.linux import disk

LIMIT = 30.0
CA_FIELDS = (NameOID.COMMON_NAME, NameOID.EMAIL_ADDRESS)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a new network."""
    directory = tmp_path_factory.mktemp("registry") / "etc"
    assert registry.main(["init", "--network", "2001:db8:42::/48", "--dir", str(directory), "--anonymous"]) == 0
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A registry in a process of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.port = free_port()
        own = ("--db", "r.db", "-l", "log/r.log", "-r", ".", "-4", "127.0.0.1", "-6", "", "--web", "off")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "re6st.cli.registry.main"),
                *("@re6st-registry.conf", "--port", str(self.port), *own, *options),
            ],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
            stderr=subprocess.PIPE,
        )

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            data: bytes = answer.read()
            return data

    def answers(self) -> bool:
        try:
            return self.get("/getCa").startswith(b"-----BEGIN CERTIFICATE")
        except OSError:
            assert self.process.poll() is None, self.process.communicate()
            return False

    def finish(self) -> tuple[int, str]:
        """Its status and what it said on standard error."""
        _, error = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, error.decode()


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    """The files of the network in a directory of this test."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def running(directory: Path) -> Iterator[Process]:
    started = Process(directory)
    try:
        wait_until(started.answers)
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.communicate()


# --- init ---


def test_init_makes_a_network(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == ["ca.crt", "ca.key", "dh.pem", "re6st-registry.conf"]
    assert (made / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (made / "ca.crt").stat().st_mode & 0o777 == 0o644
    ca = cert.load_pem((made / "ca.crt").read_bytes())
    authority = cert.Authority(ca, cert.load_private_key((made / "ca.key").read_bytes()))
    assert str(authority.trust.network) == "2001:db8:42::/48"
    assert ca.serial_number == 0x120010DB80042 == serial_of_network(authority.trust.network)


def test_init_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init.main(["--network", "fd00:42::/32", "--dir", str(tmp_path), "--port", "8080"]) == 0
    said = capsys.readouterr().out
    assert f"cd {tmp_path} && re6st-registry @re6st-registry.conf" in said
    assert "re6st-registry invite root@localhost --url http://localhost:8080 @re6st-registry.conf" in said
    assert "\nanonymous-prefix-length" not in (tmp_path / "re6st-registry.conf").read_text()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("10.0.0.0/8", "give an IPv6 network"),
        ("mesh", "give an IPv6 network"),
        ("fd00::1/48", "has host bits set"),
    ],
)
def test_init_says_what_network_it_wants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], network: str, words: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        init.main(["--network", network, "--dir", str(tmp_path)])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "doubt"),
    [
        ("2001:db8:42::/48", "for examples in documents"),
        ("fd00::/8", "private networks of others"),
        ("fe80::/10", "is not for hosts"),
        ("2a00:1450::/32", ""),
        ("fd12:3456:789a::/48", ""),
    ],
)
def test_init_tells_of_a_network_that_is_a_bad_choice(network: str, doubt: str) -> None:
    assert doubt in init.doubts(IPv6Network(network))
    assert bool(init.doubts(IPv6Network(network))) is bool(doubt)


def test_init_takes_a_random_network_and_the_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = []
    for name in ("a", "b"):
        arguments = ["--network", "random", "--url", "http://mesh.example.org/", "--dir", str(tmp_path / name)]
        assert init.main(arguments) == 0
        ca = cert.load_pem((tmp_path / name / "ca.crt").read_bytes())
        networks.append(cert.network_of_ca(ca))
        assert "\nurl http://mesh.example.org/\n" in (tmp_path / name / "re6st-registry.conf").read_text()
        assert "--url http://mesh.example.org/" in capsys.readouterr().out
    assert networks[0] != networks[1]
    assert all(each.prefixlen == 48 and each.subnet_of(IPv6Network("fd00::/8")) for each in networks)


def test_init_never_writes_over_a_file(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "ca.key").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        registry.main(["init", "--network", "2001:db8:42::/48", "--dir", str(made)])
    assert stopped.value.code == 1
    assert "exists already" in capsys.readouterr().err
    assert (made / "ca.key").read_bytes() == before


def test_init_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "dh.pem":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr(disk, "write_private", full)
    with pytest.raises(SystemExit) as stopped:
        init.main(["--network", "2001:db8:42::/48", "--dir", str(tmp_path)])
    assert stopped.value.code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["--network", "10.0.0.0/8"],
        ["--network", "2001:db8::1/48"],
        ["--network", "::/0"],
        ["--network", "2001:db8::/127"],
        ["--network", "2001:db8::/128"],
        ["--network", "2001:db8:42::/48", "--email", "nobody"],
        ["--network", "2001:db8:42::/48", "--name", "a\nb"],
        [],
    ],
)
def test_wrong_options_of_init_end_with_status_2(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        registry.main(["init", "--dir", str(tmp_path), *wrong])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_small_networks_give_shorter_prefixes() -> None:
    lengths = {size: init.prefix_length(IPv6Network(f"2001:db8::/{size}")) for size in (32, 64, 111, 120)}
    assert lengths == {32: 16, 64: 16, 111: 17, 120: 8}


def test_the_group_is_that_of_rfc_7919(tmp_path: Path) -> None:
    """p = 2^2048 - 2^1984 + (floor(2^1918 e) + 560316) 2^64 - 1 (RFC 7919 appendix A.1)."""
    scale = 1 << 1918 + 64
    term = total = scale
    k = 1
    while term:
        term //= k
        total += term
        k += 1
    prime = (1 << 2048) - (1 << 1984) + (((total >> 64) + 560316) << 64) - 1
    der = base64.b64decode("".join(FFDHE2048.splitlines()[1:-1]))
    assert der == bytes.fromhex("308201080282010100") + prime.to_bytes(256) + bytes.fromhex("020102")


# --- serving ---


def test_it_serves_reopens_its_log_and_stops_cleanly(running: Process) -> None:
    log = running.directory / "log" / "r.log"
    log.rename(log.with_name("r.log.1"))
    running.process.send_signal(signal.SIGUSR1)
    wait_until(log.exists)
    with pytest.raises(urllib.error.HTTPError):
        running.get("/noSuchMethod")
    wait_until(lambda: "unknown method" in log.read_text())
    running.process.terminate()
    assert running.finish() == (0, "")
    assert log.read_text().endswith("INFO registry: stopped\n")


def test_a_renewed_ca_certificate_is_served_after_sighup_and_after_a_restart(running: Process) -> None:
    path, log = running.directory / "ca.crt", running.directory / "log" / "r.log"
    old = cert.load_pem(path.read_bytes())
    first = cert.load_pem(running.get(f"/requestCertificate?{urlencode({'token': '', 'req': new_request()})}"))
    key = cert.load_private_key((running.directory / "ca.key").read_bytes())
    network = cert.network_of_ca(old)
    name, email = (str(old.subject.get_attributes_for_oid(oid)[0].value) for oid in CA_FIELDS)
    later = pki.begin_of(old) + timedelta(days=1)
    wrong = {
        "its key differs": cert.new_ca(cert.new_key(), network, name, email, later),
        "its subject differs": cert.new_ca(key, network, "other", email, later),
        "its serial, hence its network, differs": cert.new_ca(key, IPv6Network("fd00::/8"), name, email, later),
    }

    def says(complaint: str) -> bool:
        return complaint in log.read_text()

    for complaint, bad in wrong.items():
        path.write_bytes(cert.to_pem(bad))
        running.process.send_signal(signal.SIGHUP)
        wait_until(partial(says, complaint))
        assert cert.load_pem(running.get("/getCa")) == old
    new = cert.new_ca(key, network, name, email, later)
    path.write_bytes(cert.to_pem(new))
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: cert.load_pem(running.get("/getCa")) == new)
    assert cert.Trust(old).renews(new), "nodes accept it"
    second = cert.load_pem(running.get(f"/requestCertificate?{urlencode({'token': '', 'req': new_request()})}"))
    for each in (first, second):
        cert.Trust(new).check_strict(each, later)
    running.process.terminate()
    assert running.finish() == (0, "")
    again = Process(running.directory)
    try:
        wait_until(again.answers)
        assert cert.load_pem(again.get("/getCa")) == new
    finally:
        again.process.terminate()
        assert again.finish() == (0, "")
    path.write_bytes(cert.to_pem(wrong["its subject differs"]))
    status, error = Process(running.directory).finish()
    assert (status, error.count("\n")) == (1, 1)
    assert "--ca ca.crt did not issue the certificate of the registry node 0/16 in r.db." in error


def new_request() -> str:
    return cert.new_request(cert.new_key()).public_bytes(serialization.Encoding.PEM).decode()


def test_no_certificate_that_was_sent_is_lost_by_a_kill(running: Process) -> None:
    request = cert.new_request(cert.new_key()).public_bytes(serialization.Encoding.PEM).decode()
    query = urlencode({"token": "", "req": request})
    first = [cert.load_pem(running.get(f"/requestCertificate?{query}")) for _ in range(20)]
    running.process.kill()
    running.finish()
    again = Process(running.directory)
    try:
        wait_until(again.answers)
        second = [cert.load_pem(again.get(f"/requestCertificate?{query}")) for _ in range(5)]
    finally:
        again.process.terminate()
        assert again.finish() == (0, "")
    issued = first + second
    assert [cert.prefix_of_cert(each).value for each in issued] == list(range(25))
    assert [cert.number_of_cert(each) for each in issued] == list(range(25))
    assert [each.serial_number for each in issued] == list(range(1, 26))


def test_a_second_one_refuses_to_start(running: Process) -> None:
    status, error = Process(running.directory).finish()
    assert status == 1
    assert error.count("\n") == 1
    assert error.startswith("re6st-registry: database r.db: in use by another registry.")
    assert running.answers()


def test_a_port_in_use_is_named(running: Process) -> None:
    status, error = Process(running.directory, "--port", str(running.port), "--db", "other.db").finish()
    assert status == 1
    assert f"cannot listen on 127.0.0.1 port {running.port}: Address already in use." in error
    assert error.count("\n") == 1


def change(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        path = directory / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return apply


HELLO_LINE = OPTIONS.splitlines().index("hello 4") + 1

BAD: list[tuple[str, int, list[str], Callable[[Path], None] | None]] = [
    ("missing.crt: No such file or directory", 1, ["--ca", "missing.crt"], None),
    ("dh.pem: not an RSA certificate in PEM form", 1, ["--ca", "dh.pem"], None),
    ("ca.crt: not a private key", 1, ["--key", "ca.crt"], None),
    ("no Diffie-Hellman parameters", 1, ["--dh", "re6st-registry.conf"], None),
    ("--prefix-length 79: prefix length 79 would make subnets of /127", 1, ["--prefix-length", "79"], None),
    ("--anonymous-prefix-length 81:", 1, ["--anonymous-prefix-length", "81"], None),
    ("--ipv4 10.0.0.1/8 4:", 1, ["--ipv4", "10.0.0.1/8", "4"], None),
    ("--ipv4 10.0.0.0/8 17: '17' is not a number", 1, ["--ipv4", "10.0.0.0/8", "17"], None),
    ("no 16 bits to number nodes", 1, ["--ipv4", "10.0.0.0/24", "16"], None),
    ("--same-country needs a database of countries", 1, ["--same-country", "FR"], None),
    ("--authorized-origin localhost: not an IP address", 1, ["--authorized-origin", "localhost"], None),
    ("--community none: No such file", 1, ["--community", "none"], None),
    ("--community ca.crt: line 1:", 1, ["--community", "ca.crt"], None),
    ("neither IPv4 nor IPv6", 1, ["-4", ""], None),
    ("cannot listen on 192.0.2.1 port", 1, ["-4", "192.0.2.1"], None),
    ("database ca.crt: file is not a database", 1, ["--db", "ca.crt"], None),
    ("log file /proc/none/log: No such file", 1, ["-l", "/proc/none/log"], None),
    ("re6st-registry.conf:5: unknown option 'cb'", 2, [], change("re6st-registry.conf", "ca ca.crt", "cb ca.crt")),
    ("argument --port: '99999'", 2, ["--port", "99999"], None),
    (
        f"re6st-registry.conf:{HELLO_LINE}: argument --hello: 'x'",
        2,
        [],
        change("re6st-registry.conf", "hello 4", "hello x"),
    ),
    ("unrecognized arguments: --wrong", 2, ["--wrong"], None),
]


@pytest.mark.parametrize(("says", "status", "options", "damage"), BAD, ids=[case[0] for case in BAD])
def test_a_wrong_configuration_is_one_line(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    says: str,
    status: int,
    options: list[str],
    damage: Callable[[Path], None] | None,
) -> None:
    monkeypatch.chdir(directory)
    monkeypatch.setattr(registry, "setup_logging", _no_logging)
    if damage:
        damage(directory)
    own = ["--db", "r.db", "-l", "r.log", "-4", "127.0.0.1", "-6", "", "--port", "0"]
    with pytest.raises(SystemExit) as stopped:
        registry.main(["@re6st-registry.conf", *own, *options])
    error = capsys.readouterr().err
    assert says in error
    assert (stopped.value.code, error.count("\n")) == (status, 1)


@pytest.mark.parametrize(("options", "journal"), [((), True), (("-l", str(LOG_FILE)), False)])
def test_who_names_a_place_for_logs_gets_a_file_there(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], journal: bool
) -> None:
    asked = []

    def setup(verbosity: int, path: Path, *, journal: bool, style: str) -> None:
        asked.append(journal)
        raise OSError(1, "enough", str(path))

    monkeypatch.setattr(registry, "setup_logging", setup)
    monkeypatch.setattr(registry, "in_journal", lambda: True)
    with pytest.raises(SystemExit):
        registry.main(["--ca", "ca.crt", "--key", "ca.key", "--dh", "dh.pem", *options])
    assert asked == [journal]


def _no_logging(verbosity: int, path: Path, *, journal: bool, style: str) -> None:
    if path.parent != Path():
        raise FileNotFoundError(2, "No such file or directory")


def test_a_community_inside_a_used_prefix_is_refused(running: Process) -> None:
    request = cert.new_request(cert.new_key()).public_bytes(serialization.Encoding.PEM).decode()
    running.get(f"/requestCertificate?{urlencode({'token': '', 'req': request})}")
    running.process.terminate()
    assert running.finish()[0] == 0
    (running.directory / "communities").write_text("00000000000000000 fr\n1 *\n")
    status, error = Process(running.directory, "--community", "communities").finish()
    assert status == 1
    assert "--community: 00000000000000000 lies in a prefix that a node has already" in error


def test_its_packets_are_short_enough_for_every_path(running: Process) -> None:
    with socket.create_connection(("127.0.0.1", running.port), 10) as own:
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SEGMENT
