"""A machine that is a member stays who it is, and one that was revoked is told so: with a real registry."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from re6st import cert
from re6st.cli.conf import again
from re6st.cli.conf import main as conf
from re6st.cli.status import down, netcheck
from re6st.client.registry_client import RegistryClient, RegistryRefused
from re6st.core.telemetry.report import REVOKED
from re6st.linux import disk
from tests.unit.registry_world import World
from tests.unit.registryd.test_registry_hello import Between


class Member:
    """A machine that has joined by an invitation, in `here`."""

    def __init__(self, world: World, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world, self.here, self._capsys = world, here, capsys
        self.url = f"http://127.0.0.1:{world.port}/"

    async def invitation(self) -> str:
        token = await self.world.registry.tokens.new("a@example.org", 16)
        return f"{self.url}#{cert.shown_fingerprint(self.world.authority.trust.ca)},token={token}"

    def unused(self) -> int:
        """Tokens that are not spent."""
        found: int = self.world.store.rows._db.execute("SELECT count(*) FROM token").fetchone()[0]
        return found

    async def run(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and all that is said."""

        def run() -> tuple[int, str]:
            try:
                code = conf.main(["-d", str(self.here), *arguments])
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 99
            out, err = self._capsys.readouterr()
            assert "Traceback" not in err
            return code, out + err

        return await asyncio.to_thread(run)

    @property
    def cn(self) -> str:
        return cert.prefix_of_cert(cert.load_pem((self.here / "cert.crt").read_bytes())).cn

    async def join(self) -> None:
        await self.world.enrol()  # the registry's own node
        disk.write_private(self.here / "cert.key", cert.key_to_pem(self.world.key))
        code, said = await self.run("--join", await self.invitation())
        assert (code, self.cn) == (0, "1/16"), said


Play = Callable[[Callable[[Member], Awaitable[None]]], None]


@pytest.fixture
def play(
    tmp_path: Path,
    authority: cert.Authority,
    nodes: dict[str, cert.Identity],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Play:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    start = datetime.now(UTC) - timedelta(days=400)
    ca = cert.new_ca(authority.key, authority.trust.network, "Example mesh", "ca@example.org", start)
    world = World(tmp_path, cert.Authority(ca, authority.key), nodes["1/16"])
    world.now = time.time()
    world.origins = ("127.0.0.1",)
    here = tmp_path / "here"
    here.mkdir()

    def play(test: Callable[[Member], Awaitable[None]]) -> None:
        async def main(world: World) -> None:
            await test(Member(world, here, capsys))

        world.run(main)

    return play


def test_a_second_invitation_changes_nothing_and_its_token_stays_good(play: Play) -> None:
    async def test(member: Member) -> None:
        await member.join()
        before = {path.name: path.read_bytes() for path in member.here.iterdir()}
        code, said = await member.run("--join", await member.invitation())
        assert code == 0, "a script that joins a machine each time it runs goes on"
        assert "Member   this machine is one already. Nothing was changed, and no token was used" in said
        assert said.rstrip().endswith("(CN=1/16)")
        assert {path.name: path.read_bytes() for path in member.here.iterdir()} == before
        assert member.unused() == 1
        code, said = await member.run("--anonymous", "--registry", member.url)
        assert (code, member.cn) == (0, "1/16")

    play(test)


def test_whoever_wants_another_subnet_gets_it(play: Play) -> None:
    async def test(member: Member) -> None:
        await member.join()
        code, _ = await member.run("--force", "--join", await member.invitation())
        assert (code, member.cn, member.unused()) == (0, "2/16", 0)

    play(test)


@pytest.mark.parametrize(("answer", "code", "cn"), [("", 1, "1/16"), ("n", 1, "1/16"), ("y", 0, "2/16")])
def test_on_a_terminal_it_is_asked(
    play: Play, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, cn: str
) -> None:
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return answer

    async def test(member: Member) -> None:
        await member.join()
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", ask)
        found, said = await member.run("--join", await member.invitation())
        assert (found, member.cn) == (code, cn), said
        assert "is a member already, with the subnet 2001:db8:42:1::/64 (CN=1/16)" in prompts[0]

    play(test)


def test_another_subject_needs_another_certificate_and_that_is_said(play: Play) -> None:
    async def test(member: Member) -> None:
        await member.join()
        code, said = await member.run("--join", await member.invitation(), "-r", "O", "Corp")
        assert (code, member.cn) == (1, "1/16")
        assert "Give --force" in said

    play(test)


@pytest.mark.parametrize("given_away", [True, False])
def test_whoever_was_revoked_joins_again(play: Play, given_away: bool) -> None:
    async def test(member: Member) -> None:
        await member.join()
        await member.world.call("revoke", cn_or_serial="1/16")
        if given_away:
            request = member.world.request(key=cert.new_key())
            answer = await member.world.call("requestCertificate", token="", req=request, location="", ip="")
            assert cert.prefix_of_cert(cert.load_pem(answer.body)).cn == "1/16"
        code, said = await member.run("--join", await member.invitation())
        if given_away:  # anybody on the way may say so: nothing proves it
            assert (code, member.cn, member.unused()) == (1, "1/16", 1)
            assert "does not seem to know this machine as 1/16 any more" in said
            assert "Give --force" in said
            code, said = await member.run("--force", "--join", await member.invitation())
            assert (code, member.cn) == (0, "2/16"), said
        else:
            assert (code, member.cn, member.unused()) == (0, "1/16", 0), said
            assert "Revoked  the registry does not know this machine as 1/16 any more" in said

    play(test)


def test_whoever_has_lost_the_key_joins_again_without_force(play: Play) -> None:
    async def test(member: Member) -> None:
        await member.join()
        (member.here / "cert.key").unlink()
        code, said = await member.run("--join", await member.invitation())
        assert (code, member.cn) == (0, "2/16"), said

    play(test)


def test_an_invitation_to_another_network_does_not_overwrite_this_one(play: Play) -> None:
    async def test(member: Member) -> None:
        await member.join()
        key = cert.new_key()
        now = datetime.now(UTC)
        other = cert.Authority(
            cert.new_ca(key, member.world.authority.trust.network, "Other", "o@example.org", now), key
        )
        public = member.world.key.public_key()
        own = cert.load_pem((member.here / "cert.crt").read_bytes())
        (member.here / "ca.crt").write_bytes(cert.to_pem(other.trust.ca))
        (member.here / "cert.crt").write_bytes(cert.to_pem(other.issue(own.subject, public, 9, now)))
        code, said = await member.run("--join", await member.invitation())
        assert code == 1
        assert "is of another network" in said
        assert cert.load_pem((member.here / "ca.crt").read_bytes()) == other.trust.ca
        assert member.unused() == 1

    play(test)


def test_a_client_knows_that_its_node_was_revoked(play: Play) -> None:
    """What re6st-status tells."""

    async def test(member: Member) -> None:
        await member.join()
        identity = again.identity_in(*(member.here / name for name in ("ca.crt", "cert.crt", "cert.key")))
        assert identity is not None
        client = RegistryClient(member.url, identity)
        await client.get_network_config()
        assert not client.refused
        await member.world.call("revoke", cn_or_serial="1/16")
        with pytest.raises(RegistryRefused, match=r"does not know 1/16: revoked.*re6st-conf join"):
            await client.get_network_config()
        assert client.refused

    play(test)


def test_a_registry_that_says_nothing_for_long_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def main() -> None:
        asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def tell(text: str) -> None:
            told.append(text)
            asked.set_result(7)

        client = RegistryClient("http://registry.example.com/")
        assert await again.patiently(asked, client, tell) == 7
        asked = asyncio.get_running_loop().create_future()
        asked.set_result(8)
        assert await again.patiently(asked, client, tell) == 8

    monkeypatch.setattr(again, "PATIENCE", 0.05)
    asyncio.run(main())
    (text,) = told
    assert text == "registry http://registry.example.com has not answered yet: waiting for it, up to a minute"


def test_netcheck_of_a_node_that_does_not_run_tells_it_to_enrol_only_if_the_registry_proves_that_it_was_revoked(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(member: Member) -> None:
        await member.join()
        monkeypatch.setattr(down, "DIRECTORY", member.here)
        assert await netcheck.membership([member.url], "1/16") == []
        await member.world.call("revoke", cn_or_serial="1/16")
        (found,) = await netcheck.membership([member.url], "1/16")
        assert found.text == REVOKED
        between = Between(member.world.port)
        async with between.serving() as url:
            between.replayed = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
            (found,) = await netcheck.membership([url], "1/16")
        assert "404 Not Found, and nothing proves that the registry said so" in found.text
        assert "re6st-conf" not in found.text + found.remedy

    play(test)
