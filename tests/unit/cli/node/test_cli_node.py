"""re6stnet's options (wire.md 11.2): what they mean, and that every wrong one ends in one line and status 2."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from re6st import PROTOCOL, cert
from re6st.cert import CertError
from re6st.cli.node import main as node
from re6st.cli.node.main import main
from re6st.cli.node.options import configuration, parser
from re6st.client.files import Files
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux import process
from re6st.linux.kernel import KernelError
from re6st.noded.registry_updates import TooOld
from re6st.noded.settings import Config

BASE = ["--registry", "http://192.0.2.1/", "--ca", "ca.crt", "--cert", "cert.crt", "--key", "cert.key"]


def read(*argv: str) -> Config:
    p = parser()
    return configuration(p, p.parse(argv))


def config(*options: str) -> Config:
    return read(*BASE, *options)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the user is told, which is one line, with status 2."""
    with pytest.raises(SystemExit) as stopped:
        read(*argv)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert err.startswith("re6stnet: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert ".." not in err.replace("--help.", "")
    return err


@pytest.mark.parametrize(("options", "journal"), [((), True), (("--log", "/var/log/re6stnet"), False)])
def test_who_names_a_place_for_logs_gets_files_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], journal: bool
) -> None:
    """Also the usual place, as the older software's options do, and where tools look for files."""
    asked = []

    def setup(verbosity: int, path: Path, *, journal: bool, style: str) -> None:
        asked.append(journal)
        raise OSError(1, "enough", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(node, "setup_logging", setup)
    monkeypatch.setattr(node, "in_journal", lambda: True)
    with pytest.raises(SystemExit):
        main([*BASE, "--state", "state", *options])
    assert asked == [journal]


def test_defaults() -> None:
    assert config() == Config(
        registry="http://192.0.2.1/",
        files=Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key")),
        log=Path("/var/log/re6stnet"),
        run=Path("/var/run/re6stnet"),
        state=Path("/var/lib/re6stnet"),
        main_interface="lo",
        ports=((1194, TunnelProtocol.TCP),),
        both_families=True,
        disabled_protocols=frozenset({TunnelProtocol.UDP, TunnelProtocol.UDP6}),
        client_count=None,
        max_clients=None,
        upnp=True,
        wireguard=True,
        wireguard_asked=False,
    )


@pytest.mark.parametrize(
    ("words", "links", "by_program"),
    [((), True, False), (("auto",), True, False), (("any",), True, True), (("off",), False, False)],
)
def test_wireguard_is_used_where_the_kernel_has_it_if_nothing_is_said(
    words: tuple[str, ...], links: bool, by_program: bool
) -> None:
    made = config(*(f"--wireguard={word}" for word in words))
    assert (made.wireguard, made.wireguard_go, made.wireguard_asked) == (links, by_program, bool(words))


def test_everything(tmp_path: Path) -> None:
    (tmp_path / "dh.pem").write_text("-----BEGIN DH PARAMETERS-----\n")
    (tmp_path / "re6stnet.conf").write_text(
        f"# as the packages have it\nlog {tmp_path}/log\nrun run\nstate {tmp_path}/state\nv 3\nip 192.0.2.7\n"
        f"ip 2001:db8::7\npp 1194 tcp\npp 443 tcp\npp 1195 udp6\ncountry FR\ninterface eth0\ninterface wlan0.7\n"
        f"I dummy0\nB-d\nO--mute\nO 5\novpnlog\ndh {tmp_path}/dh.pem\nclient-count 4\nmax-clients 0\ngateway\n"
        "accept-route 192.168.7.0/24\naccept-route 2001:db8:7::/48\n"
        f"disable-proto tcp6\ndisable-proto udp\nneighbour 3/16\nneighbour 0/80\ndefault\ntable 0\n"
        "console /run/x.sock\n"
    )
    made = config(f"@{tmp_path}/re6stnet.conf", "--client-count", "5")
    assert made == Config(
        registry="http://192.0.2.1/",
        files=Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key")),
        log=tmp_path / "log",
        run=Path("run").absolute(),
        state=tmp_path / "state",
        main_interface="dummy0",
        lan=("eth0", "wlan0.7"),
        ip=(ip_address("192.0.2.7"), ip_address("2001:db8::7")),
        ports=((1194, TunnelProtocol.TCP), (443, TunnelProtocol.TCP), (1195, TunnelProtocol.UDP6)),
        disabled_protocols=frozenset({TunnelProtocol.UDP, TunnelProtocol.TCP6}),
        client_count=5,
        max_clients=0,
        neighbours=frozenset({Prefix(3, 16), Prefix(0, 80)}),
        babel_arguments=("-d",),
        openvpn_arguments=("--mute", "5"),
        openvpn_log=True,
        dh=tmp_path / "dh.pem",
        country="FR",
        verbosity=3,
        console=Path("/run/x.sock"),
        gateway=True,
        accept_route=(ip_network("192.168.7.0/24"), ip_network("2001:db8:7::/48")),
        wireguard=True,
        wireguard_asked=False,
    )


def test_every_protocol_may_be_used() -> None:
    made = config("--disable-proto", "none")
    assert made.disabled_protocols == frozenset()
    assert made.ports == ((1194, TunnelProtocol.UDP), (1194, TunnelProtocol.TCP))
    assert made.offered == ((1194, TunnelProtocol.UDP), (1194, TunnelProtocol.TCP), (1194, TunnelProtocol.TCP6))


def test_a_node_of_one_tunnel() -> None:
    made = config("--client", "a.example.org,1194,tcp; 2001:db8::1,443,udp6;")
    assert made.remotes == (
        Endpoint("a.example.org", 1194, TunnelProtocol.TCP),
        Endpoint("2001:db8::1", 443, TunnelProtocol.UDP6),
    )
    assert not made.upnp


def test_without_log_babeld_has_none_either() -> None:
    assert config("-v", "0").babel_log is False
    assert config("-v", "1").babel_log is True


@pytest.mark.parametrize(
    "words",
    [
        ("-C", "export-table 223"),
        ("-C", "import-table 224"),
        ("-C", "export-table"),
        ("-C", "export-table many"),
        ("-t240",),
        ("-d", "224"),
        ("-?", "-t224"),
    ],
)
def test_babeld_gets_all_other_arguments_as_they_are(words: tuple[str, ...]) -> None:
    assert config(*(f"-B{word}" for word in words)).babel_arguments == words


WRONG: list[tuple[list[str], str]] = [
    (["--no-packet-filter=yes"], "ignored explicit argument"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
    (["stray"], "unrecognized arguments: stray"),
    (["--pp", "1194"], "argument --pp: expected 2 arguments"),
    (["--pp", "1194", "sctp"], "argument --pp: 'sctp' is not one of udp, tcp, udp6, tcp6"),
    (["--pp", "0", "tcp"], "argument --pp: '0' is not a number between 1 and 65535"),
    (["--pp", "99999", "tcp"], "argument --pp: '99999'"),
    (["--pp", "tcp", "1194"], "argument --pp: '1194' is not one of"),
    (["--pp", "1194", "tcp", "--pp", "1194", "tcp6"], "argument --pp: tcp and tcp6 both use port 1194"),
    (["--ip", "somewhere"], "argument --ip: 'somewhere' is not an IP address"),
    (["--ip", "192.0.2.1/24"], "argument --ip: '192.0.2.1/24'"),
    (["--ip", "0.0.0.0"], "argument --ip: '0.0.0.0' is not an address that others can reach"),
    (["--ip", "::"], "argument --ip: '::'"),
    (["--ip", "fe80::1%eth0"], "argument --ip: 'fe80::1%eth0'"),
    (["--ip", "ff02::1"], "argument --ip: 'ff02::1'"),
    (
        ["--ip", "upnp", "--ip", "192.0.2.7"],
        "argument --ip: with 'upnp' or 'any' no other IPv4 address can be given",
    ),
    (["--neighbour", "3"], "argument --neighbour: '3' is not of the form INT/LEN"),
    (["--neighbour", "9/2"], "argument --neighbour: 9/2 is not a prefix"),
    (["--client-count", "-1"], "argument --client-count: '-1' is not a number between 0 and 1000"),
    (["--client-count", "many"], "argument --client-count: 'many'"),
    (["--max-clients", "1e3"], "argument --max-clients: '1e3'"),
    (["-v", "5"], "argument -v/--verbose: '5' is not a number between 0 and 4"),
    (["--disable-proto", "sctp"], "argument --disable-proto: 'sctp' is not one of "),
    (["--pp", "1194", "udp"], "argument --pp: udp is disabled: see --disable-proto"),
    (
        ["--disable-proto", "none", "--disable-proto", "udp"],
        "argument --disable-proto: none cannot be combined with others",
    ),
    (["--table", "5"], "argument --table: 5 is not one of 0"),
    (["--metrics", "9326"], "argument --metrics: '9326' is not of the form"),
    (["--metrics", ":0"], "argument --metrics: '0' is not a number between 1 and 65535"),
    (["--metrics", "fd00::1:80"], "argument --metrics: 'fd00::1:80' is not of the form"),
    (["--metrics", "[10.0.0.1]:80"], "argument --metrics: '[10.0.0.1]:80' is not of the form"),
    (["--metrics", "localhost:80"], "argument --metrics: 'localhost:80' is not of the form"),
    (["--accept-route", "home"], "argument --accept-route: 'home' is not a prefix"),
    (["--accept-route", "192.168.7.1/24"], "argument --accept-route: '192.168.7.1/24' is not a prefix"),
    (["--remote-gateway", "2001:db8::1"], "argument --remote-gateway: '2001:db8::1' is not an IPv4 address"),
    (["--remote-gateway", "127.0.0.1"], "argument --remote-gateway: '127.0.0.1' cannot be the address of a router"),
    (
        ["--client", "h,1,tcp", "--remote-gateway", "192.0.2.1"],
        "argument --client: cannot be combined with --remote-gateway",
    ),
    (["--client", "h,1194,sctp"], "argument --client: 'h,1194,sctp' is not of the form HOST,PORT,PROTO"),
    (["--client", "h,1194,tcp;h,0,tcp"], "argument --client: 'h,0,tcp' is not of the form HOST,PORT,PROTO"),
    (["--client", "h 1,1194,tcp"], "argument --client: 'h 1,1194,tcp' is not"),
    (["--client", "h,1194,tcp,FR"], "argument --client: 'h,1194,tcp,FR' is not"),
    (["--client", ""], "argument --client: 0 servers: give 1 to 32"),
    (["--client", ";".join(["h,1,tcp"] * 33)], "argument --client: 33 servers"),
    (["--client", "h,1,tcp", "--pp", "1194", "tcp"], "argument --client: cannot be combined with --pp"),
    (["--client", "h,1,tcp", "--ip", "any"], "argument --client: cannot be combined with --ip"),
    (["--client", "h,1,tcp", "--max-clients", "0"], "argument --client: cannot be combined with --max-clients"),
    (["--client", "h,1,tcp", "--client-count", "3"], "argument --client: cannot be combined with --client-count"),
    (["--client", "h,1,tcp", "--neighbour", "0/8"], "argument --client: cannot be combined with --neighbour"),
    (["-B-C", "-B", "export-table 224"], "argument -B: babeld's export table 224 is one of 224-239"),
    (["-B-Cexport-table 0xef"], "argument -B: babeld's export table 0xef is one of 224-239"),
    (["-B-C", "-Bexport-table 0340"], "argument -B: babeld's export table 0340 is one of 224-239"),
    (["-B-t", "-B", "239"], "argument -B: babeld's export table 239 is one of 224-239"),
    (["-Beth0", "-B-C", "-Bexport-table 225"], "argument -B: babeld's export table 225 is one of 224-239"),
    (["-B-st486"], "argument -B: babeld's export table 486, which babeld takes for 230, is one of"),
    (["--registry", "no url"], "registry 'no url': not of the form http://HOST"),
    (["--registry", "ftp://x/"], "registry 'ftp://x/': not of the form http://HOST"),
    (["-i", "re6stnet-tcp"], "argument -i/--interface: 're6stnet-tcp' is the name of one of our tunnels"),
    (["-I", "re6stnet2"], "argument -I/--main-interface: 're6stnet2' is the name of one of our tunnels"),
    (["--interface", "eth 0"], "argument -i/--interface: 'eth 0' is not the name of an interface"),
    (["--interface", "eth0\nredistribute"], "argument -i/--interface: "),
    (["--interface", ""], "argument -i/--interface: ''"),
    (["-I", "a/b"], "argument -I/--main-interface: 'a/b'"),
    (["-I", "x" * 16], "argument -I/--main-interface: 'xxx"),
    (["--country", "FR;10.0.0.1"], "argument --country: 'FR;10.0.0.1' is not a country code of two letters"),
    (["--dh", "/nonexistent/dh.pem"], "argument --dh: /nonexistent/dh.pem: No such file or directory"),
    (["--dh", "/"], "argument --dh: /: Is a directory"),
    (["--dh", "/dev/null"], "argument --dh: /dev/null has no Diffie-Hellman parameters in PEM form"),
    (["--country", "FRA"], "argument --country: 'FRA' is not a country code"),
    (["--main-interface", ""], "argument -I/--main-interface: ''"),
    (["--test"], "argument --test: expected one argument"),
    (["-v"], "argument -v/--verbose: expected one argument"),
    (["--gateway=yes"], "argument --gateway: ignored explicit argument 'yes'"),
    (["--multicast=no"], "argument -m/--multicast: ignored explicit argument 'no'"),
    (["--ovpnlog=1"], "argument --ovpnlog: ignored explicit argument '1'"),
    (["--default=1"], "argument -D/--default: ignored explicit argument '1'"),
    (["--run", "/var/lib/x", "--state", "/var/lib/x"], "argument --run: /var/lib/x is also the directory of --state"),
    (["--run", "/var/log/x/", "--log", "/var/log/x"], "argument --run: /var/log/x is also the directory of --log"),
    (["--check=1"], "argument --check: ignored explicit argument '1'"),
    (["--no-probe=x"], "argument --no-probe: ignored explicit argument"),
    (["--mptcp=2"], "argument --mptcp: ignored explicit argument"),
    (["--uplink", "a b"], "argument --uplink: 'a b': 'a b' is not a name of 1 to 15 letters"),
    (["--uplink", ""], "argument --uplink: '': '' is not a name"),
    (["--uplink", "a,speed=3"], "'speed=3' is not dev=IF, gateway=IP, down=MBIT, up=MBIT or metered"),
    (["--uplink", "a,metered=1"], "'metered=1' is not dev=IF"),
    (["--uplink", "a,dev"], "'dev' is not dev=IF"),
    (["--uplink", "a,dev=eth0/1"], "'eth0/1' is not the name of an interface"),
    (["--uplink", "a,dev=re6stnet1"], "'re6stnet1' is the name of one of our tunnels"),
    (["--uplink", "a,dev=eth0,dev=eth1"], "dev stands there twice"),
    (["--uplink", "a,metered,metered"], "metered stands there twice"),
    (["--uplink", "a,up=1,up=2"], "up stands there twice"),
    (["--uplink", "a,gateway=router"], "'router' is not an IP address"),
    (["--uplink", "a,gateway=0.0.0.0"], "'0.0.0.0' cannot be the address of a router"),
    (["--uplink", "a,gateway=192.0.2.1,gateway=192.0.2.2"], "two gateways of one family: give each a line of its own"),
    (["--uplink", "a,up=0"], "up=0 is not a number of Mbit/s above 0, up to 1000000"),
    (["--uplink", "a,down=1000000000000"], "down=1000000000000 is not a number of Mbit/s above 0"),
    (["--uplink", "a,down=-1"], "down=-1 is not a number"),
    (["--uplink", "a,down=nan"], "down=nan is not a number"),
    (["--uplink", "a,down=1e9"], "down=1e9 is not a number"),
    (
        ["--uplink", "a", "--uplink", "a,dev=eth1"],
        "argument --uplink: two are named 'a': give one of them another name",
    ),
    ([word for n in range(8) for word in ("--uplink", f"a{n}")], "argument --uplink: given 8 times: 7 is the most"),
    (["--uplink", "a", "--remote-gateway", "192.0.2.1"], "argument --uplink: cannot be combined with --remote-gateway"),
    (["--bulk", "tcp", "0"], "argument --bulk: "),
    (["--bulk", "user", "nobody-here"], "argument --bulk: there is no user 'nobody-here'"),
    (["--bulk", "sctp", "1"], "argument --bulk: 'sctp' is none of tcp, udp, user, cgroup"),
    (["--bulk", "cgroup", 'a"b'], "argument --bulk: 'a\"b' is not the path of a control group"),
    (["--bulk", "cgroup", "/"], "argument --bulk: '/' is not the path of a control group"),
    (["--bulk", "tcp", "1"] * 65, "argument --bulk: given 65 times: 64 is the most"),
    (["--wireguard", "on"], "argument --wireguard: 'on' is not one of auto, any, off"),
    (["--wireguard-ports", "21194"], "argument --wireguard-ports: '21194' is not of the form FIRST-LAST"),
    (["--wireguard-ports", "3000-2000"], "argument --wireguard-ports: '3000-2000' is not of the form FIRST-LAST"),
    (["--wireguard-ports", "80-90"], "argument --wireguard-ports: 80-90 has ports outside 1024-65535"),
    (
        ["--disable-proto", "none", "--pp", "2000", "udp", "--wireguard-ports", "1999-2005"],
        "argument --wireguard-ports: 1999-2005 contains port 2000, which is that of the server udp",
    ),
    (["--log-format", "xml"], "argument --log-format: 'xml' is not one of text, json"),
    (["@/nonexistent.conf"], "option file /nonexistent.conf: No such file or directory"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_a_wrong_option_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert says in refusal(capsys, *BASE, *options)


ANYTHING = {"--up", "--daemon", "-B", "-O"}
"""What the user says there is handed on as it is."""
FILES = {"--ca", "--cert", "--key", "--log", "--run", "--state", "--console"}
"""Looked at when they are used, below and in test_node_trouble.py."""


def test_every_option_has_a_wrong_value_that_is_refused() -> None:
    refused = {word for options, _ in WRONG for word in (options[-2:] + options)}
    refused = {word.partition("=")[0] for word in refused}
    for action in parser()._actions:
        names = set(action.option_strings)
        assert names & (refused | ANYTHING | FILES | {"--help", "--version"}), f"{names}: no wrong value is tried"


@pytest.mark.parametrize("missing", ["--registry", "--ca", "--cert", "--key"])
def test_a_missing_option_is_named(capsys: pytest.CaptureFixture[str], missing: str) -> None:
    place = BASE.index(missing)
    assert f"the following arguments are required: {missing}" in refusal(capsys, *BASE[:place], *BASE[place + 2 :])


def test_a_wrong_line_of_a_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "re6stnet.conf"
    file.write_text("pp 1194 tcp\nclient-count lots\n")
    assert f"re6stnet: {file}:2: argument --client-count: 'lots'" in refusal(capsys, *BASE, f"@{file}")


OPTIONS = [f"--{word}" for word in ("pp", "ip", "client-count", "neighbour", "country", "interface", "dh", "registry")]


@given(st.lists(st.sampled_from(OPTIONS) | st.text(max_size=8) | st.sampled_from(["1194", "udp", "::1", "0/8"])))
def test_any_arguments_are_taken_or_refused(words: list[str]) -> None:
    status: object = 0
    try:
        assert config(*words).run.is_absolute()
    except SystemExit as stopped:
        status = stopped.code
    assert status in (0, 2)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for option, words in (("--help", "INT/LEN|--registry URL"), ("--version", f"protocol {PROTOCOL}")):
        with pytest.raises(SystemExit) as stopped:
            parser().parse([option])
        assert stopped.value.code == 0
        assert re.search(words, capsys.readouterr().out)


# --- what can go wrong before there is a node ---


@pytest.fixture
def quiet() -> Iterator[None]:
    """`main` sets logging up; put it back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:
        root.removeHandler(handler)
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def run(tmp_path: Path, *options: str) -> int:
    places = [f"--log={tmp_path}/log", f"--state={tmp_path}/state", f"--run={tmp_path}/run"]
    status: object
    try:
        status = main([*BASE, *places, *options])
    except SystemExit as stopped:
        status = stopped.code
    assert isinstance(status, int)
    return status


@pytest.mark.usefixtures("quiet")
def test_who_called_it_starts_programs_as_before(tmp_path: Path) -> None:
    """What tells its event loop of the end of programs goes with that: those of other threads have their own."""
    assert run(tmp_path, f"--ca={tmp_path}/ca.crt") == 78
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, process.output_of(["true"], 10)).result()[0] == 0


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_bad_certificate_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    ca = tmp_path / "ca.crt"
    if content is not None:
        ca.write_bytes(content)
    assert run(tmp_path, f"--ca={ca}") == 78
    error = capsys.readouterr().err
    assert error.startswith(f"re6stnet: {ca}: ")
    assert error.count("\n") == 1
    assert str(ca) in (tmp_path / "log" / "re6stnet.log").read_text(), "the log has it too"
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "re6stnet.conf"
    for content, says in ((b"state /x\0y\n", "it has a zero byte"), (b"up \xff\n", "not in UTF-8")):
        file.write_bytes(content)
        assert f"option file {file}: not" in (told := refusal(capsys, *BASE, f"@{file}"))
        assert says in told


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("option", ["--ca", "--cert", "--key"])
def test_a_missing_or_unreadable_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nodes: dict[str, cert.Identity], option: str
) -> None:
    node = nodes["1/16"]
    for name, content in (("ca", node.trust.ca), ("cert", node.cert)):
        (tmp_path / name).write_bytes(cert.to_pem(content))
    (tmp_path / "key").write_bytes(cert.key_to_pem(node.key))
    file = tmp_path / option.removeprefix("--")
    given = [f"--{name}={tmp_path}/{name}" for name in ("ca", "cert", "key")]
    for spoil in (lambda: file.write_bytes(b"\0" * 9), file.unlink, file.mkdir):
        spoil()
        assert run(tmp_path, *given) == 78
        error = capsys.readouterr().err
        assert error.startswith(f"re6stnet: {file}: ")
        assert error.count("\n") == 1


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("option", ["--state", "--log"])
def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path, f"{option}={tmp_path}/file/x") == 78
    error = capsys.readouterr().err
    assert f"{tmp_path}/file" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("quiet")
def test_a_program_that_is_not_installed_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    authority: cert.Authority,
    nodes: dict[str, cert.Identity],
) -> None:
    now = datetime.now(UTC) - timedelta(days=1)
    key = nodes["1/16"].key
    ca = cert.new_ca(authority.key, IPv6Network("2001:db8:42::/48"), "x", "x@example.com", now)
    own = cert.Authority(ca, authority.key).issue(
        cert.subject_for(x509.Name([]), 1, Prefix(1, 16)), key.public_key(), 1, now
    )
    for name, content in (("ca", cert.to_pem(ca)), ("cert", cert.to_pem(own)), ("key", cert.key_to_pem(key))):
        (tmp_path / name).write_bytes(content)

    def missing(name: str) -> str:
        raise process.MissingProgram(f"{name}: program not found. Install it (Debian: apt install {name}).")

    monkeypatch.setattr(process, "find_program", missing)
    assert run(tmp_path, *(f"--{name}={tmp_path}/{name}" for name in ("ca", "cert", "key"))) == 78
    assert re.fullmatch(r"re6stnet: (babeld|openvpn): program not found\. .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("expression", "status"), [("main_interface == 'lo'", 1), ("gateway", 0), ("client_count == 7", 1), ("7", 7)]
)
def test_the_value_of_an_expression_is_the_status(expression: str, status: int) -> None:
    assert main([*BASE, "--client-count", "7", "--test", expression]) == status


def test_an_expression_that_acts_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*BASE, "--test", "__import__('os').getpid()"])
    assert stopped.value.code == 2
    assert "argument --test: " in capsys.readouterr().err


class FailingNode:
    """A node that fails, at its start or while it runs."""

    def __init__(self, error: Exception, started: bool) -> None:
        self.started = started
        self._error = error

    async def run(self, stop: asyncio.Event) -> None:
        raise ExceptionGroup("tasks", [self._error])

    def reopen_logs(self) -> None: ...


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("error", "started", "status"),
    [
        (KernelError("cannot make the interface re6stnet-tcp: Operation not permitted.", lasting=True), False, 77),
        (KernelError("cannot make the interface re6stnet-tcp: Operation not permitted.", lasting=True), True, 1),
        (KernelError("cannot make the interface re6stnet-tcp: Device or resource busy."), False, 1),
        (CertError("cert.crt: no certificate"), False, 78),
        (CertError("cert.crt: no certificate"), True, 1),
        (TooOld("the network wants protocol 11"), True, 76),
    ],
)
def test_what_breaks_a_node_that_ran_does_not_keep_systemd_from_starting_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, started: bool, status: int
) -> None:
    monkeypatch.setattr("re6st.cli.node.main.Node", lambda config: FailingNode(error, started))
    monkeypatch.setattr("re6st.cli.node.main.Successor.listen", lambda self: None)
    assert run(tmp_path) == status


def test_several_registries(tmp_path: Path) -> None:
    """On the command line they replace those of the file, as the last one did that was given to the older software."""
    (tmp_path / "re6stnet.conf").write_text("registry http://a.example.com/\nregistry http://b.example.com/\n")
    file = f"@{tmp_path}/re6stnet.conf"
    others = [word for word in BASE if "192.0.2.1" not in word and word != "--registry"]
    p = parser()
    made = configuration(p, p.parse([file, *others]))
    assert (made.registry, made.other_registries) == ("http://a.example.com/", ("http://b.example.com/",))
    p = parser()
    made = configuration(p, p.parse([file, *others, "--registry=http://c.example.com/"]))
    assert (made.registry, made.other_registries) == ("http://c.example.com/", ())


@pytest.mark.parametrize("words", [["--registry", "ftp://x/"], ["--registry", "http://x/"] * 9])
def test_registries_that_cannot_be(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    p = parser()
    with pytest.raises(SystemExit) as raised:
        configuration(p, p.parse([*BASE, *words]))
    assert raised.value.code == 2
    assert "registry" in capsys.readouterr().err
