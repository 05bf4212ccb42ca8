"""A registry whose state is in PostgreSQL, as its operator meets it: options, errors, commands, and kill -9."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from re6st import cert
from re6st.cli.registry import main as registry
from re6st.cli.registry.config import ConfigError, configure, make_parser
from re6st.cli.registry.database import ENVIRONMENT, DatabasePlace
from re6st.registryd.postgresql.connections import Connections
from re6st.registryd.repository import RepositoryError
from tests.postgresql_cluster import Cluster
from tests.unit.cli.registry.test_cli_registry import Process, wait_until
from tests.unit.operator_place import Place

URL = "postgresql://re6st@db1,db2/net"
SECRET = "postgresql://re6st:secret@db1/net"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a new network."""
    directory = tmp_path_factory.mktemp("registry") / "etc"
    assert registry.main(["init", "--network", "2001:db8:42::/48", "--dir", str(directory), "--anonymous"]) == 0
    with (directory / "re6st-registry.conf").open("a") as file:
        file.write("db r.db\nlogfile log/r.log\nrun .\n")
    return directory


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in files.iterdir():
        shutil.copy2(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return tmp_path


def found(*options: str) -> DatabasePlace:
    return configure(make_parser().parse(["@re6st-registry.conf", *options])).database


@pytest.fixture
def private(here: Path) -> Path:
    path = here / "url"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


def test_the_url_comes_from_an_option_a_file_or_the_environment(
    here: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found() == DatabasePlace(Path("r.db"))
    assert found("--database", URL).url == URL
    assert found("--database-file", str(private)).url == SECRET
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    assert found().url == SECRET
    assert found("--database", URL).url == URL
    assert "secret" not in str(found())
    with pytest.raises(ConfigError, match="give one of them"):
        found("--database", URL, "--database-file", str(private))


@pytest.mark.parametrize("url", [SECRET, "postgresql://db/net?password=secret", "postgresql://db/net?sslpassword=x"])
def test_a_password_is_not_taken_from_the_command_line(
    here: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        found("--database", url)
    assert ended.value.code == 2
    assert "--database-file" in capsys.readouterr().err


def test_a_file_that_others_can_read_and_what_is_no_url_are_refused(
    here: Path, private: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private.chmod(0o604)
    with pytest.raises(ConfigError, match="chmod 600"):
        found("--database-file", str(private))
    with pytest.raises(ConfigError, match="No such file"):
        found("--database-file", "nothing")
    monkeypatch.setenv(ENVIRONMENT, "mysql://db/net")
    with pytest.raises(ConfigError, match=f"{ENVIRONMENT}: not a URL"):
        found()
    with pytest.raises(SystemExit):
        found("--database", "r.db")
    assert "not a URL" in capsys.readouterr().err


@pytest.mark.parametrize("password", ["p%zzsecret", "p/secret", "p?secret", "p#secret", "p@secret", "p/@secret"])
def test_no_part_of_a_password_that_was_not_encoded_is_shown(here: Path, private: Path, password: str) -> None:
    private.write_text(f"postgresql://re6st:{password}@db1/net")
    with pytest.raises(ConfigError, match="Percent-encode") as refused:
        found("--database-file", str(private))
    assert "secret" not in str(refused.value)
    with pytest.raises(RepositoryError) as unreadable:
        Connections("postgresql://re6st:p%zzsecret@db1/net")
    assert "secret" not in str(unreadable.value)


def test_a_database_that_is_not_there_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["@re6st-registry.conf", "--port", "0", "-l", "log/r.log", "--database", f"postgresql:///net?host={here}"]
    with pytest.raises(SystemExit):
        registry.main(options)
    assert f"database postgresql://{here}/net: connection" in capsys.readouterr().err
    assert registry.main([*options, "--check-config"]) == 78
    assert f"database postgresql://{here}/net: connection" in capsys.readouterr().err


@pytest.fixture
def url(cluster: Cluster, here: Path) -> Iterator[str]:
    url = cluster.database()
    with (here / "re6st-registry.conf").open("a") as file:
        file.write(f"database {url}\n")
    yield url
    assert not (here / "r.db").exists()


def enrol(started: Process) -> x509.Certificate:
    request = cert.new_request(cert.new_key(2048), ()).public_bytes(serialization.Encoding.PEM).decode()
    answer = started.get(f"/requestCertificate?{urlencode({'token': '', 'req': request})}")
    return cert.load_pem(answer)


def test_what_a_killed_registry_acknowledged_is_there(here: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["@re6st-registry.conf", "--check-config"]) == 0
    for serial in (1, 2):
        started = Process(here)
        try:
            wait_until(started.answers)
            assert enrol(started).serial_number == serial
        finally:
            started.process.kill()
            started.finish()
    place = Place(here, capsys)
    assert [node["cn"] for node in place.word("nodes", "--json").json["nodes"]] == ["0/16", "1/16"]
    invited = place.word("invite", "a@example.org", "--json").json["token"]
    assert [each["token"] for each in place.word("tokens", "--json").json["tokens"]] == [invited]
    assert place.word("revoke", "1/16", "--yes").status == 0
    assert "pg_dump" in place.refused(1, "backup", str(here / "copy"))
    assert "pg_dump" in place.refused(1, "check")


def test_a_registry_moves_to_postgresql_and_back(
    here: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    place, url = Place(here, capsys), cluster.database()
    started = Process(here)
    try:
        wait_until(started.answers)
        enrol(started)
        assert "in use" in place.refused(1, "migrate", "--from", str(here / "r.db"), "--to", url)
    finally:
        started.process.terminate()
        started.finish()
    moved = place.word("migrate", "--from", str(here / "r.db"), "--to", url, "--json").json
    assert moved["rows"]["certificate"] == 1
    assert "give an empty one" in place.refused(1, "migrate", "--from", str(here / "r.db"), "--to", url)
    done = place.word("migrate", "--from", url, "--to", str(here / "back.db"))
    assert (done.status, done.out.startswith("moved  1 certificates, 0 tokens, 0 revoked, from postgresql://")) == (
        0,
        True,
    )
    assert [each["cn"] for each in place.word("nodes", "--db", str(here / "back.db"), "--json").json["nodes"]] == [
        "0/16"
    ]
    assert "no such file" in place.refused(1, "migrate", "--from", str(here / "none.db"), "--to", url)
    assert "--database-file" in place.refused(2, "migrate", "--from", SECRET, "--to", str(here / "x.db"))


def test_a_database_of_another_program_is_left_alone(
    here: Path, url: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.execute("CREATE TABLE certificate (a integer)", url)
    with pytest.raises(SystemExit):
        registry.main(["@re6st-registry.conf", "--port", "0", "-l", "log/r.log"])
    assert "tables of another program" in capsys.readouterr().err
    assert cluster.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", url) == [(1,)]
