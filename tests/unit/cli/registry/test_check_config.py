"""re6st-registry --check-config: all that is wrong, one line each, and nothing is changed."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from re6st import cert
from re6st.cli.registry import main as registry
from re6st.cli.registry.config import ConfigError, RegistryConfig, configure, make_parser
from re6st.core.prefix import serial_of_network
from re6st.registryd.mail import Mailer
from re6st.registryd.sqlite.schema import SCHEMA, create_statement
from re6st.registryd.sqlite.store import Store
from re6st.service import geoip
from re6st.service.geoip import ENVIRONMENT
from tests.unit.damaged_database import spoil_a_name
from tests.unit.service.test_geoip import make as make_mmdb

NETWORK = IPv6Network("2001:db8:42::/48")

Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("registry") / "etc"
    assert registry.main(["init", "--network", str(NETWORK), "--dir", str(directory)]) == 0
    return directory


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files of a network, from which it is run."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "ca.key").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return tmp_path


def contents(directory: Path) -> dict[str, tuple[str, int]]:
    """All files, but the memory that SQLite's readers and writers share."""
    return {
        str(path.relative_to(directory)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


@pytest.fixture
def check(here: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs it; its status, and what it says is wrong. Whatever happens, no file changes."""
    capsys.readouterr()

    def run(*options: str) -> tuple[int, list[str]]:
        before = contents(here)
        places = ("--db", "r.db", "--logfile", "log/r.log", "--run", "run")
        status = registry.main(["@re6st-registry.conf", *places, *options, "--check-config"])
        out, err = capsys.readouterr()
        assert contents(here) == before
        lines = err.splitlines()
        assert all(line.startswith("re6st-registry: ") for line in lines)
        assert bool(out) == (status == 0)
        return status, [line.removeprefix("re6st-registry: ") for line in lines]

    return run


def test_a_good_configuration_is_good(check: Check) -> None:
    assert check() == (0, [])


def test_everything_that_is_wrong_is_told_at_once(check: Check, here: Path) -> None:
    (here / "communities").write_text("01 FR\n")
    (here / "file").write_text("")
    status, lines = check(
        *("--ca", "none.crt", "--dh", "re6st-registry.conf", "--community", "communities", "--same-country", "FR"),
        *("--ipv4", "10.0.0.0/24", "16", "--authorized-origin", "localhost", "-4", "here", "-6", ""),
        *("--db", "file/r.db", "-l", "."),
    )
    assert status == 78
    starts = [
        "--same-country needs a database of countries: put one at",
        "none.crt: No such file or directory",
        "re6st-registry.conf has no Diffie-Hellman parameters",
        "--ipv4 10.0.0.0/24 16: ",
        "--community communities: the default location *",
        "--authorized-origin localhost: not an IP address",
        "cannot listen on here: it is not an IP address",
        "--db file/r.db: ",
        "--logfile .: a directory",
    ]
    assert len(lines) == len(starts), lines
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start), (line, start)


def rewrite(name: str, data: bytes) -> Callable[[Path], None]:
    def apply(here: Path) -> None:
        (here / name).write_bytes(data)

    return apply


def foreign(here: Path) -> None:
    with closing(sqlite3.connect(here / "r.db")) as db:
        db.execute("CREATE TABLE other (x)")


def other_columns(here: Path) -> None:
    with closing(sqlite3.connect(here / "r.db")) as db:
        for table in ("config", "token", "crl"):
            db.execute(create_statement(table))
        db.execute("CREATE TABLE cert (prefix, pem)")


def used(here: Path) -> None:
    with closing(sqlite3.connect(here / "r.db")) as db:
        for table in SCHEMA:
            db.execute(create_statement(table))
        db.execute("INSERT INTO cert VALUES ('01', NULL, 'x'), ('00', NULL, NULL), ('1', NULL, NULL)")
        db.execute("INSERT INTO config VALUES ('prefix', '1')")
        db.commit()
    (here / "communities").write_text("011 FR\n1 *\n")


def cut_short(here: Path) -> None:
    Store(here / "r.db", NETWORK).close()
    data = (here / "r.db").read_bytes()
    (here / "r.db").write_bytes(data[: len(data) // 2])


def damaged_name(here: Path) -> None:
    Store(here / "r.db", NETWORK).close()
    spoil_a_name(here / "r.db")


def open_key(here: Path) -> None:
    os.chmod(here / "ca.key", 0o604)


def other_key(here: Path) -> None:
    (here / "ca.key").write_bytes(cert.key_to_pem(cert.new_key()))


def old_ca(here: Path) -> None:
    key = cert.load_private_key((here / "ca.key").read_bytes())
    ca = cert.new_ca(key, NETWORK, "old", "ca@example.org", datetime.now(UTC) - timedelta(days=20000))
    (here / "ca.crt").write_bytes(cert.to_pem(ca))


def mmdb(here: Path) -> None:
    os.environ[ENVIRONMENT] = str(here / "dh.pem")


CASES: list[tuple[Callable[[Path], None], list[str], str]] = [
    (
        rewrite("dh.pem", b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n"),
        [],
        "--dh dh.pem has no Diffie",
    ),
    (rewrite("r.db", b"x" * 5000), [], "database r.db: file is not a database"),
    (cut_short, [], "database r.db: "),
    (foreign, [], "database r.db: of another program"),
    (other_columns, [], "database r.db: table cert is not a registry's: it has the columns prefix, pem"),
    (used, ["--community", "communities"], "database r.db: --community: 011 lies in a prefix that a node has already"),
    (open_key, [], "--key ca.key: open to every user"),
    (other_key, [], "the CA key does not belong to the CA certificate. Check --ca and --key."),
    (old_ca, [], "--ca ca.crt: ended on "),
    (damaged_name, [], "database r.db: it is damaged: a name in it is not in UTF-8"),
    (mmdb, [], "the database of countries: "),
    (lambda here: None, ["-4", "", "-6", ""], "neither IPv4 nor IPv6 to listen on"),
    (lambda here: None, ["--prefix-length", "79"], "--prefix-length 79: prefix length 79 would make subnets of /127"),
]


def test_what_does_less_than_it_says_is_warned_of(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Communities without countries, a mail host without a sender, a database that nobody asked for."""
    monkeypatch.setattr(geoip, "PLACE", str(here / "country.mmdb"))
    (here / "country.mmdb").write_text("half of a download")
    (here / "communities").write_text("0 EU\n1 *\n")
    request = ["openssl", "req", "-x509", "-key", "ca.key", "-out", "ca.crt", "-subj", "/O=SlapOS", "-days", "99"]
    subprocess.run([*request, "-set_serial", hex(serial_of_network(NETWORK))], check=True, capture_output=True)
    options = ["--check-config", "@re6st-registry.conf", "--db", "r.db", "-l", "r.log", "--mailhost", "127.0.0.1"]
    assert registry.main(options) == 0
    assert "--mailhost: the CA ca.crt has no emailAddress" in capsys.readouterr().err
    assert registry.main([*options, "--mail-from", "root@localhost"]) == 0
    assert "mails come from root@localhost, which other mail servers refuse" in capsys.readouterr().err
    assert registry.main([*options, "--mail-from", "re6st@example.org", "--smtp-pwd", "x"]) == 0
    said = capsys.readouterr().err
    assert "mails come from" not in said
    assert "the password goes to 127.0.0.1 in clear" in said
    assert registry.main([*options, "--mail-from", "nobody"]) == 78
    assert "--mail-from nobody: not an e-mail address" in capsys.readouterr().err
    assert registry.main([*options, "--community", "communities"]) == 78
    assert f"the database of countries: {here / 'country.mmdb'}: not a MaxMind database" in capsys.readouterr().err
    (here / "country.mmdb").unlink()
    assert registry.main([*options, "--community", "communities"]) == 0
    assert "without a database of countries all nodes are in the community *" in capsys.readouterr().err


@pytest.mark.parametrize(("damage", "options", "says"), CASES, ids=[case[2] for case in CASES])
def test_what_is_wrong_is_named(
    check: Check,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    options: list[str],
    says: str,
) -> None:
    monkeypatch.setenv(ENVIRONMENT, "")
    damage(here)
    status, lines = check(*options)
    assert status == 78
    assert any(line.startswith(says) for line in lines), lines


def test_it_works_beside_a_running_registry(check: Check, here: Path) -> None:
    store = Store(here / "r.db", NETWORK)
    try:
        assert check() == (0, [])
    finally:
        store.close()
    assert check() == (0, [])


def test_wrong_options_are_status_2(check: Check) -> None:
    with pytest.raises(SystemExit) as stopped:
        check("--hello", "x")
    assert stopped.value.code == 2


# --- options become settings (wire.md 11.3) ---


def read(*options: str, places: str = "") -> RegistryConfig:
    return configure(make_parser().parse(["@re6st-registry.conf", *options]), places)


def test_every_option_of_the_network_becomes_a_parameter(here: Path) -> None:
    database = make_mmdb(here / "country.mmdb")
    parameters = read(
        *("--ipv4", "10.42.0.0/16", "8", "--min-protocol", "7", "--hello", "9", "--client-count", "5"),
        *("--tunnel-refresh", "100", "--same-country", "fr", "--same-country", "JP", "--encrypt"),
        *("--planes", "2", "--regions", "8"),
        places=str(database),
    ).settings.parameters
    assert parameters.public() | {"babel_default": "", "protocol": 0, "extensions": []} == {
        "babel_default": "",
        "client_count": 5,
        "crl": [],
        "encrypt": True,
        "extensions": [],
        "hello": 9,
        "ipv4": "10.42.0.0/16",
        "ipv4_sublen": 8,
        "max_clients": 10,
        "min_protocol": 7,
        "planes": 2,
        "protocol": 0,
        "regions": 8,
        "registry_prefix": "",
        "same_country": ["FR", "JP"],
        "tunnel_refresh": 100,
    }
    assert read("--max-clients", "0").settings.parameters.max_clients == 0


def test_a_region_is_more_than_one_node(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"--regions 16: with --prefix-length 16, each node would be a region"):
        read("--regions", "16", "--prefix-length", "16")
    assert read("--regions", "8", "--prefix-length", "16").settings.parameters.regions == 8


def test_the_other_options_are_taken(here: Path) -> None:
    (here / "communities").write_text("# ours\n01 FR @EU\n00 *\n")
    config = read(
        *("--db", "x/y.db", "--run", "run", "--port", "8080", "-4", "127.0.0.1", "-6", "::1", "--grace-period", "5"),
        *("--mailhost", "mail.example.org:587", "--smtp-user", "u", "--smtp-pwd", "secret", "--smtp-starttls"),
        *("--prefix-length", "20", "--anonymous-prefix-length", "24", "--community", "communities"),
        *("--authorized-origin", "192.0.2.1", "--authorized-origin", "2001:db8:0::1"),
    )
    settings = config.settings
    assert (config.database.file, config.run, config.port) == (Path("x/y.db"), Path("run"), 8080)
    assert (config.ipv4, config.ipv6) == ("127.0.0.1", "::1")
    assert config.origins == ("192.0.2.1", "2001:db8::1")
    assert (settings.grace, settings.prefix_length, settings.anonymous_prefix_length) == (5, 20, 24)
    assert settings.mailer == Mailer("mail.example.org:587", "root@localhost", "u", "secret", starttls=True)
    assert [community.prefix.bits for community in settings.communities] == ["01", "00"]
    assert "secret" not in repr(config)


def test_registries_that_nodes_are_told(here: Path) -> None:
    two = ("http://a.example.com/", "https://b.example.com:8443/re6st")
    assert read("--registries", *two, two[0]).settings.parameters.registries == two
    with pytest.raises(ConfigError, match="at most 8") as raised:
        read("--registries", *(f"http://{number}.example.com/" for number in range(9)))
    with pytest.raises(ConfigError, match="leave out its password") as raised:
        read("--registries", "http://alice:secret@a.example.com/")
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="255 characters"):
        read("--registries", f"http://a.example.com/{'x' * 255}")


def test_nodes_of_other_registries(here: Path) -> None:
    told = read("--registry-nodes", "7/16", "9/16", "7/16").settings.parameters.registry_nodes
    assert [prefix.cn for prefix in told] == ["7/16", "9/16"]
    with pytest.raises(ConfigError, match="--registry-nodes"):
        read("--registry-nodes", "7")
    with pytest.raises(ConfigError, match="at most 8"):
        read("--registry-nodes", *(f"{number}/16" for number in range(9)))
