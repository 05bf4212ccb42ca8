"""re6stnet --check: what is in force and where it was set, all that is wrong, and nothing changed."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from cryptography import x509

from re6st import PROTOCOL, cert
from re6st.cli import kernel_findings, machine
from re6st.cli.node import check as check_node
from re6st.cli.node.main import main
from re6st.core.prefix import Prefix
from re6st.core.wire.params import Parameters, make_version
from re6st.linux import disk
from re6st.linux.mptcp_netlink import NoMptcp
from re6st.noded.peer_cache import Cache
from re6st.noded.successor import WHETHER_READY
from re6st.view.findings import Finding
from tests.unit.damaged_database import spoil_a_name

NETWORK = IPv6Network("2001:db8:42::/48")
OPTIONS = """registry http://192.0.2.1/
ca ca.crt
cert cert.crt
# twice
key cert.key

log log
run run
state state
pp 1194 tcp
pp 443 tcp
client-count 4
"""


class World:
    def __init__(self, directory: Path, authority: cert.Authority, key_of: cert.Identity) -> None:
        now = datetime.now(UTC)
        ca = cert.new_ca(authority.key, NETWORK, "re6st.example.com", "x@example.com", now - timedelta(days=1))
        self.authority, self.key, self.directory = cert.Authority(ca, authority.key), key_of.key, directory
        (directory / "ca.crt").write_bytes(cert.to_pem(ca))
        disk.write_private(directory / "cert.key", cert.key_to_pem(self.key))
        self.issue(timedelta(days=300))
        (directory / "re6stnet.conf").write_text(OPTIONS)
        for name in ("state", "log"):
            (directory / name).mkdir()

    def issue(self, ends: timedelta, starts: timedelta = timedelta(days=-1)) -> None:
        now = datetime.now(UTC)
        subject = cert.subject_for(x509.Name([]), 2, Prefix(1, 16))
        made = self.authority.issue(subject, self.key.public_key(), 2, now + starts, now + ends)
        (self.directory / "cert.crt").write_bytes(cert.to_pem(made))

    def remember(self, *, key: cert.Authority | None = None, **changes: object) -> None:
        """A cache with these parameters."""
        signer = (key or self.authority).key
        version = make_version(12, lambda data: cert.sign(signer, data))
        values: dict[str, object] = {"version": version, "protocol": PROTOCOL, "max_clients": 33, **changes}
        cache = Cache(self.directory / "state" / "cache.db")
        cache.store_parameters(Parameters(registry_prefix=Prefix(0, 16), **values))  # type: ignore[arg-type]
        cache.close(())


Check = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def world(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity], monkeypatch: pytest.MonkeyPatch
) -> World:
    monkeypatch.chdir(tmp_path)
    for name in ("programs", "capabilities", "source_routes", "tun_device"):  # they are tested in test_machine.py
        monkeypatch.setattr(machine, name, lambda *_: iter(()))
    for name in ("ipv6", "firewall"):  # in test_kernel_findings.py
        monkeypatch.setattr(kernel_findings, name, lambda *_: iter(()))
    tun = tmp_path / "tun"
    tun.touch()
    monkeypatch.setattr(check_node, "TUN", tun)
    monkeypatch.setattr(check_node, "find_program", lambda name, remedy="": name)
    return World(tmp_path, authority, nodes["1/16"])


def contents(directory: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "", path.stat().st_mtime_ns)
        for path in [directory, *directory.rglob("*")]
        if not path.name.endswith("-shm")
    }


@pytest.fixture
def check(world: World, capsys: pytest.CaptureFixture[str]) -> Iterator[Check]:
    """Runs it; the status, the table, and what is said. Whatever happens, no file changes."""

    def run(*options: str) -> tuple[int, str, list[str]]:
        before = contents(world.directory)
        status = main(["@re6stnet.conf", "--check", *options])
        assert contents(world.directory) == before
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert all(line.startswith("re6stnet: ") for line in lines), lines
        return status, out, [line.removeprefix("re6stnet: ") for line in lines]

    handlers = logging.getLogger().handlers[:]
    yield run
    assert logging.getLogger().handlers == handlers, "no log is begun"


def row(table: str, option: str) -> tuple[str, str]:
    """Value and origin of an option in the table."""
    (found,) = re.findall(rf"^{re.escape(option)} +(.+?)  +(\S.*)$", table, re.M)
    return found[0], found[1]


def test_values_and_where_they_were_set(world: World, check: Check) -> None:
    world.remember()
    status, out, said = check("-v", "3", "--pp", "1195", "udp6", "--disable-p", "udp")
    assert (status, said) == (0, [])
    assert out.endswith("re6stnet: the configuration is good\n")
    assert row(out, "registry") == ("http://192.0.2.1", "re6stnet.conf:1")
    assert row(out, "key") == ("cert.key", "re6stnet.conf:5")
    assert row(out, "verbose") == ("3", "command line")
    assert row(out, "pp") == ("1194 tcp, 443 tcp, 1195 udp6", "re6stnet.conf:10, re6stnet.conf:11, command line")
    assert row(out, "disable-proto") == ("udp", "command line")
    assert row(out, "main-interface") == ("lo", "default")
    assert row(out, "client-count") == ("4", "re6stnet.conf:12")
    assert row(out, "max-clients") == ("33", "the network's parameters")
    assert row(out, "(hello)") == ("15", "state/cache.db, version 12")
    assert row(out, "(subnet)") == ("2001:db8:42:1::/64", "cert.crt")
    assert "--check" not in out


def test_it_works_before_the_first_start_and_makes_nothing(world: World, check: Check) -> None:
    (world.directory / "state").rmdir()
    status, out, said = check("--client-count", "7")
    assert status == 0
    assert said == ["warning: state/cache.db is not there yet: the first start waits for the registry"]
    assert row(out, "max-clients") == ("-", "the network's parameters (not known yet)")
    assert row(out, "client-count") == ("7", "command line"), "the last one counts"


def test_all_problems_at_once(world: World, check: Check) -> None:
    (world.directory / "cert.crt").write_text("no PEM")
    (world.directory / "cert.key").chmod(0o644)
    (world.directory / "run").mkdir()
    (world.directory / "run" / "thesis.tex").touch()
    (world.directory / "log").rmdir()
    (world.directory / "log").touch()
    status, _, said = check("-I", "nowhere0", "-i", "nowhere1")
    said = [line for line in said if not line.startswith("warning")]
    assert status == 78
    for words in (
        "cert.crt: not an RSA certificate in PEM form",
        "--key cert.key: open to every user of this machine -> chmod 600",
        "thesis.tex', which is not from re6stnet",
        "--log log: no directory -> choose another one",
    ):
        assert [line for line in said if words in line], (words, said)
    assert len(said) == 4


@pytest.mark.parametrize(
    ("days", "status", "says"),
    [
        (10, 0, "warning: our certificate expires in 10 days -> the node renews it when it reaches the registry"),
        (-0.5, 0, "warning: our certificate has expired -> the node renews it when it reaches the registry"),
    ],
)
def test_a_certificate_near_its_end_is_a_warning(
    world: World, check: Check, days: float, status: int, says: str
) -> None:
    world.remember()
    world.issue(timedelta(days=days), timedelta(days=-30))
    assert check()[::2] == (status, [says])


def test_a_key_of_another_certificate(world: World, check: Check, nodes: dict[str, cert.Identity]) -> None:
    world.remember()
    (world.directory / "cert.key").write_bytes(cert.key_to_pem(nodes["0/16"].key))
    status, _, said = check()
    assert status == 78
    assert len(said) == 1
    assert "does not belong to" in said[0]


def test_a_form_that_openvpn_does_not_read_is_named(
    world: World, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cert.crt", "cert.key"):
        path = world.directory / name
        path.write_text("\n".join(f"  {line}" for line in path.read_text().splitlines()))
    status, _, said = check()
    assert status == 0
    for name in ("cert.crt", "cert.key"):
        expected = f"warning: {name}: OpenVPN does not read its form -> the node writes it anew as it starts"
        assert expected in said
    monkeypatch.setattr(check_node, "cannot_write", lambda path, **_: "no way" if path == world.directory else None)
    status, _, said = check()
    assert status == 78
    assert any("cert.key: OpenVPN does not read its form, and the node cannot write it anew: no way" in s for s in said)


def test_what_is_remembered(world: World, check: Check, nodes: dict[str, cert.Identity]) -> None:
    world.remember(min_protocol=PROTOCOL + 1)
    status, _, said = check()
    assert (status, len(said)) == (78, 1)
    assert said[0].endswith(f"this program speaks {PROTOCOL} -> upgrade it")
    foreign = cert.Authority(world.authority.trust.ca, world.authority.key)
    foreign.key = nodes["0/16"].key
    world.remember(key=foreign)
    assert check()[::2] == (
        0,
        ["warning: the remembered parameters are not of this network -> the node asks the registry instead"],
    )
    (world.directory / "state" / "cache.db").write_text("this is no database, " * 100)
    status, _, said = check()
    assert (status, len(said)) == (0, 1)
    assert "file is not a database" in said[0]
    (world.directory / "state" / "cache.db").unlink()
    world.remember()
    spoil_a_name(world.directory / "state" / "cache.db")
    status, _, said = check()
    assert (status, len(said)) == (0, 1)
    assert "damaged: a name in it is not in UTF-8" in said[0]


def test_the_machine(world: World, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    world.remember()
    lacks = [Finding("fail", "machine", "no program babeld", "apt install babeld"), Finding("ok", "machine", "tun")]
    monkeypatch.setattr(machine, "programs", lambda: iter(lacks))
    monkeypatch.setattr(check_node, "TUN", world.directory / "nothing")
    status, _, said = check()
    assert status == 78
    assert said == [
        "no program babeld -> apt install babeld",
        f"cannot open {world.directory}/nothing: No such file or directory"
        " -> run as root or with CAP_NET_ADMIN; a container must be given the device",
    ]


def test_wrong_options_are_told_as_ever(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["@re6stnet.conf", "--check", "--pp", "0", "udp"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("re6stnet: re6stnet.conf:10: argument --pp: ")


@pytest.mark.parametrize("fault", ["", "certificate", "run", "state", "parameters", "program", "tun"])
def test_who_asks_before_it_hands_over_is_told_what_would_keep_the_next_one_from_starting(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["@re6stnet.conf", "--test", "0"]
    world.remember()
    match fault:
        case "certificate":
            (world.directory / "cert.crt").write_text("half")
        case "run":
            (world.directory / "run").mkdir(mode=0o755)
            (world.directory / "run" / "precious").touch()
        case "state":
            options += ["--state", str(world.directory / "cert.crt")]
        case "parameters":
            world.remember(min_protocol=PROTOCOL + 1)
        case "program":
            finding = Finding("fail", "program", "babeld: program not found", "")
            monkeypatch.setattr(machine, "programs", lambda: iter([finding]))
        case "tun":
            monkeypatch.setattr(check_node, "TUN", world.directory / "nothing")
    # A person who tests an option is not told of anything else.
    assert main(options) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(WHETHER_READY, "1")
    assert main(options) == (78 if fault else 0)
    told = capsys.readouterr().err
    assert bool(told) == bool(fault)
    assert all(line.startswith("re6stnet: ") for line in told.splitlines())
    # Nor is what it can live with, or what it has lived with, a reason: an interface that is waited for.
    options += ["--main-interface", "nothing0"]
    (world.directory / "cert.key").chmod(0o644)
    assert main(options) == (78 if fault else 0)


def test_a_kernel_without_mptcp_is_a_warning(world: World, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    world.remember()

    def lacks() -> None:
        raise NoMptcp("it is switched off: sysctl net.mptcp.enabled=1")

    monkeypatch.setattr("re6st.cli.node.check.need_mptcp", lacks)
    assert check()[2] == [], "nobody asked for it"
    status, _, said = check("--mptcp")
    assert status == 0
    assert said == [
        "warning: --mptcp: it is switched off: sysctl net.mptcp.enabled=1 -> one connection uses one line until then"
    ]


def test_a_line_to_the_internet_that_is_not_there_is_a_warning(world: World, check: Check) -> None:
    world.remember()
    status, out, said = check("--uplink", "lte,dev=nowhere0,metered", "--uplink", "dsl,gateway=203.0.113.77")
    assert status == 0
    assert said == [
        "warning: --uplink lte: there is no interface nowhere0 -> it is used when it is there",
        "warning: --uplink dsl: no interface is in the network of its router 203.0.113.77"
        " -> it is used when it is there",
    ]
    assert row(out, "uplink")[0] == "lte,dev=nowhere0,metered, dsl,gateway=203.0.113.77"
