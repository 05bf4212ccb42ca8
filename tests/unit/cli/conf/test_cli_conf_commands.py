"""re6st-conf show, renew and rekey as a user meets them, with a registry over real HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from re6st import cert
from re6st.api import http
from re6st.cli.conf import main as conf
from re6st.cli.conf.files import read_options
from re6st.cli.options import OptionParser
from re6st.core.wire.rpc import METHODS
from re6st.keys import pki
from re6st.linux import disk
from tests.unit.registry_world import DAY, B, World

YEAR = timedelta(days=365)


class Run:
    """What a run printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 1


class Machine:
    """One that has enrolled, in `here`."""

    def __init__(self, world: World, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world, self.here, self._capsys = world, here, capsys

    async def enrol(self) -> cert.Identity:
        """The second member; the first is the registry's node."""
        await self.world.enrol()
        own = await self.world.enrol()
        self.put(own)
        (self.here / "ca.crt").write_bytes(cert.to_pem(self.world.authority.trust.ca))
        disk.write_private(self.here / "cert.key", cert.key_to_pem(self.world.key))
        files = "ca ca.crt\ncert cert.crt\nkey cert.key"
        url = f"http://127.0.0.1:{self.world.port}/"
        (self.here / "re6stnet.conf").write_text(f"# the registry\nregistry '{url}'\n{files}\n")
        return self.load()

    def put(self, own: object) -> None:
        (self.here / "cert.crt").write_bytes(cert.to_pem(own))  # type: ignore[arg-type]

    def load(self) -> cert.Identity:
        here = self.here
        return cert.Identity.load(here / "ca.crt", here / "cert.crt", here / "cert.key", datetime.now(UTC))

    async def run(self, word: str, *arguments: str) -> Run:
        def run() -> Run:
            try:
                code = conf.main([word, "-d", str(self.here), *arguments])
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 99
            out, err = self._capsys.readouterr()
            assert all(line.startswith(f"re6st-conf {word}: ") for line in err.splitlines()), err
            return Run(code, out, err)

        return await asyncio.to_thread(run)

    def issue(self, starts: timedelta, ends: timedelta) -> None:
        """Have a certificate of other dates, which the registry does not know."""
        own, now = self.load(), datetime.now(UTC)
        public = cert.key_of_cert(own.cert)
        authority = self.world.authority
        self.put(authority.issue(own.cert.subject, public, own.cert.serial_number, now + starts, now + ends))


class Play(Protocol):
    """Plays a test; the registry begins that many seconds ago."""

    def __call__(self, test: Callable[[Machine], Awaitable[None]], *, ago: float = 0) -> None: ...


@pytest.fixture
def play(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity], capsys: pytest.CaptureFixture[str]
) -> Play:
    start = datetime.now(UTC) - timedelta(days=400)
    ca = cert.new_ca(authority.key, authority.trust.network, "Example mesh", "ca@example.org", start)
    world = World(tmp_path, cert.Authority(ca, authority.key), nodes["1/16"])
    world.now = time.time()
    here = tmp_path / "here"
    here.mkdir()

    def play(test: Callable[[Machine], Awaitable[None]], *, ago: float = 0) -> None:
        world.now -= ago

        async def main(world: World) -> None:
            await test(Machine(world, here, capsys))

        world.run(main)

    return play


# --- show ---


def test_show_says_what_there_is(play: Play) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        shown = await machine.run("show")
        assert shown.code == 0
        for text in ("CN=Example mesh", "network 2001:db8:42::/48", "sha256:", "serial 2", "CN=1/16", "RSA-2048"):
            assert text in shown.out
        assert "2001:db8:42:1::/64 (CN=1/16), address 2001:db8:42:1::1" in shown.out
        assert "belongs to the certificate" in shown.out
        assert "(in 365 d)" in shown.out
        assert "Wrong" not in shown.out
        assert "KEY" not in shown.out

    play(test)


def test_show_as_json(play: Play) -> None:
    async def test(machine: Machine) -> None:
        own = await machine.enrol()
        shown = json.loads((await machine.run("show", "--json")).out)
        assert shown["schema"] == 1
        assert shown["ok"] is True
        assert shown["problems"] == []
        assert shown["days_left"] == 364
        assert shown["key"] == {"bits": 2048, "matches": True}
        assert shown["certificate"]["serial"] == own.cert.serial_number
        assert shown["certificate"]["cn"] == "1/16"
        assert shown["certificate"]["ca"]["network"] == "2001:db8:42::/48"
        assert shown["registry"] == f"http://127.0.0.1:{machine.world.port}"
        (machine.here / "ca.crt").unlink()
        shown = json.loads((await machine.run("show", "--json")).out)
        assert shown["certificate"] is None
        assert shown["ok"] is False

    play(test)


def test_show_never_tells_a_password(play: Play) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        options = machine.here / "re6stnet.conf"
        options.write_text(options.read_text().replace("http://", "http://me:secret@"))
        for shown in (await machine.run("show"), await machine.run("show", "--json")):
            assert shown.code == 0
            assert "127.0.0.1" in shown.out
            assert "secret" not in shown.out

    play(test)


@pytest.mark.parametrize(
    ("starts", "ends", "text"),
    [
        (-YEAR, timedelta(days=-3), "ended 3 d ago, and was not renewed: try re6st-conf renew"),
        (-YEAR, timedelta(days=9, minutes=1), "ends in 9 d, and was not renewed"),
        (timedelta(days=1), YEAR, "on: set the clock"),
    ],
)
def test_show_tells_wrong_dates(play: Play, starts: timedelta, ends: timedelta, text: str) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        machine.issue(starts, ends)
        shown = await machine.run("show")
        assert shown.code == 1
        assert text in shown.out

    play(test)


def test_show_tells_what_does_not_fit(play: Play, nodes: dict[str, cert.Identity]) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        key, own = machine.here / "cert.key", machine.here / "cert.crt"

        async def wrong() -> list[str]:
            shown = await machine.run("show")
            assert shown.code == 1
            return [line[9:] for line in shown.out.splitlines() if line.startswith("Wrong ")]

        key.chmod(0o644)
        assert await wrong() == [f"{key} may be read by others (mode 0644): chmod 600 {key}"]
        key.chmod(0o600)
        good = key.read_bytes()
        key.write_bytes(cert.key_to_pem(nodes["0/16"].key))
        assert "does not belong to" in (await wrong())[0]
        key.write_bytes(b"nothing")
        assert (await wrong())[0].startswith(f"{key}: not a private key in PEM form")
        key.write_bytes(good)
        own.write_bytes(cert.to_pem(nodes["0/16"].cert))
        assert any("of another network" in line or "does not belong" in line for line in await wrong())
        own.unlink()
        assert f"{own}: No such file or directory" in await wrong()

    play(test)


def test_words_where_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("show", "renew", "rekey"):
        with pytest.raises(SystemExit) as ended:
            conf.main([word, "--dir", "."])
        assert ended.value.code == 1
        assert capsys.readouterr().err.startswith(f"re6st-conf {word}: there are no certificates in .")
    with pytest.raises(SystemExit) as ended:
        conf.main(["shwo"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "re6st-conf: unknown command 'shwo'. Did you mean show?\n"


# --- renew ---


def test_renew_when_nothing_is_due(play: Play) -> None:
    async def test(machine: Machine) -> None:
        own = await machine.enrol()
        machine.world.port = 0
        (machine.here / "re6stnet.conf").write_text("registry http://127.0.0.1:1/\n")  # it is not asked
        done = await machine.run("renew")
        assert done.code == 0
        assert "nothing to do" in done.out
        assert machine.load().der == own.der

    play(test)


def test_renew_near_the_end(play: Play) -> None:
    async def test(machine: Machine) -> None:
        own = await machine.enrol()
        machine.world.now += 340 * DAY
        (machine.here / "cert.crt").chmod(0o640)
        done = await machine.run("renew")
        assert done.code == 0, done.err
        new = machine.load()
        assert f"new, serial {new.cert.serial_number}, valid until" in done.out
        assert "where re6stnet runs, it goes on with it within seconds" in done.out
        assert pki.end_of(new.cert) > pki.end_of(own.cert)
        assert (machine.here / "cert.crt").stat().st_mode & 0o777 == 0o640

    play(test, ago=340 * DAY)


def test_renew_that_is_too_early_for_the_registry_is_no_failure(play: Play) -> None:
    async def test(machine: Machine) -> None:
        own = await machine.enrol()
        for arguments in (["--force"], ["--if-within", "400d"]):
            done = await machine.run("renew", *arguments)
            assert done.code == 0
            assert "nothing to do" in done.out
        assert machine.load().der == own.der

    play(test)


def test_renew_of_a_revoked_certificate_by_force(play: Play) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        assert (await machine.world.call("revoke", cn_or_serial="2")).status == 204
        done = await machine.run("renew", "--force")
        assert done.code == 0
        assert "new, serial 3" in done.out

    play(test)


@pytest.mark.parametrize(
    ("url", "code", "text"),
    [("http://127.0.0.1:1/", 3, "registry http://127.0.0.1:1"), ("nonsense", 1, "Check --registry")],
)
def test_renew_without_a_registry(play: Play, url: str, code: int, text: str) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        failed = await machine.run("renew", "--force", "--registry", url)
        assert failed.code == code
        assert text in failed.err
        (machine.here / "re6stnet.conf").unlink()
        failed = await machine.run("renew", "--force")
        assert failed.code == 1
        assert "names no registry. Give --registry." in failed.err

    play(test)


def test_renew_of_who_was_evicted(play: Play) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        assert (await machine.world.call("revoke", cn_or_serial="1/16")).status == 204
        failed = await machine.run("renew", "--force")
        assert failed.code == 5
        assert "does not know 1/16" in failed.err

    play(test)


# --- rekey ---


def test_rekey(play: Play) -> None:
    async def test(machine: Machine) -> None:
        old = await machine.enrol()
        done = await machine.run("rekey")
        assert done.code == 0, done.err
        new = machine.load()
        assert new.prefix == B
        assert not pki.same_key(new.key.public_key(), old.key.public_key())
        assert "new RSA-2048" in done.out
        assert "serial 2 is refused by the whole network from now on" in done.out
        assert done.out.splitlines()[-1].endswith("(CN=1/16), as before")
        assert set(await machine.world.store.read(lambda queries: queries.crl())) == {2}
        assert (await machine.run("show")).code == 0

    play(test)


def test_rekey_that_keeps_the_old(play: Play) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        done = await machine.run("rekey", "--keep-old")
        assert done.code == 0
        assert "serial 2 is accepted as long as it is valid" in done.out
        assert set(await machine.world.store.read(lambda queries: queries.crl())) == set()

    play(test)


def test_rekey_that_was_interrupted_is_told_and_finished(play: Play) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        failed = await machine.run("rekey", "--registry", "http://127.0.0.1:1/")
        assert failed.code == 3
        shown = await machine.run("show")
        assert shown.code == 1
        assert "re6st-conf rekey finishes it" in shown.out
        assert (await machine.run("rekey")).code == 0
        assert (await machine.run("show")).code == 0

    play(test)


def test_rekey_at_a_registry_that_cannot(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(machine: Machine) -> None:
        old = await machine.enrol()
        known = {name: method for name, method in METHODS.items() if name != "rekeyCertificate"}
        monkeypatch.setattr(http, "METHODS", known)
        failed = await machine.run("rekey")
        assert failed.code == 5
        assert "cannot change a key: it runs an older version, or other software." in failed.err
        assert machine.load().der == old.der
        assert (await machine.run("show")).code == 0

    play(test)


def test_rekey_after_somebody_else(play: Play) -> None:
    async def test(machine: Machine) -> None:
        await machine.enrol()
        before = {path: path.read_bytes() for path in machine.here.iterdir()}
        assert (await machine.run("rekey")).code == 0
        for path, data in before.items():
            path.write_bytes(data)
        failed = await machine.run("rekey")
        assert failed.code == 5
        assert "If it was not you who changed it, tell the operator." in failed.err

    play(test)


def test_the_options_are_read_as_re6stnet_reads_them(tmp_path: Path) -> None:
    options = tmp_path / "re6stnet.conf"
    options.write_text(
        "# registry http://old/\n#key /old\nregistry http://u:p#w@h/\nregistry http://h2/\n"
        "cert /etc/my#dir/cert.crt\nca '/a b'\n"
    )
    found = read_options(options)
    urls = ["http://u:p#w@h/", "http://h2/"]
    assert found == {"registry": urls, "cert": ["/etc/my#dir/cert.crt"], "ca": ["/a b"]}
    parser = OptionParser("re6stnet", "")
    for name in found:
        parser.add_argument(f"--{name}", action="append")
    assert vars(parser.parse([f"@{options}"])) == found
