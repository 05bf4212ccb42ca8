"""Somebody between a node and its registry records what it says, and plays it to the node again, a year later."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from re6st import cert
from re6st.client import answered_hellos, renewal
from re6st.client.answered_hellos import LIMIT, AnsweredHellos
from re6st.client.registry_client import RegistryAnswerError, RegistryClient, RegistryKeyError
from re6st.keys import pki
from tests.unit.registry_world import DAY, A, World


class Listener:
    """A proxy that records the answers of the registry, or repeats them; the registry seems to be of older software."""

    def __init__(self, port: int) -> None:
        self._registry = port
        self._tape: list[bytes] = []
        self._repeat: Iterator[bytes] | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def end(self) -> None:
        self._server.close()

    def repeat(self) -> None:
        self._repeat = iter(self._tape)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = re.sub(rb"Re6stOffer: .*?\r\n", b"", await reader.readuntil(b"\r\n\r\n"))
        if self._repeat is not None:
            writer.write(next(self._repeat, b""))
        else:
            source, sink = await asyncio.open_connection("127.0.0.1", self._registry)
            sink.write(head)
            self._tape.append(await source.read())
            sink.close()
            writer.write(self._tape[-1])
        writer.close()


Test = Callable[[Listener, str, cert.Identity], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> Callable[[Test], World]:
    """Run a test with a registry, somebody in between, and the identity of a node."""
    (tmp_path / "registry").mkdir()
    world = World(tmp_path / "registry", authority, nodes["1/16"])

    def run(test: Test) -> World:
        async def main(world: World) -> None:
            await world.enrol()
            listener = Listener(world.port)
            pem = await world.store.read(lambda queries: queries.pem(A))
            assert pem is not None
            identity = cert.Identity(authority.trust, cert.load_pem(pem), world.key)
            try:
                await test(listener, await listener.start(), identity)
            finally:
                listener.end()

        world.run(main)
        return world

    run.world = world  # type: ignore[attr-defined]
    return run


@contextmanager
def refused(what: str) -> Iterator[None]:
    with pytest.raises(RegistryAnswerError, match=what):
        yield


@pytest.mark.parametrize("restarted", [False, True])
def test_a_session_of_before_is_not_taken_again(play: Callable[[Test], World], tmp_path: Path, restarted: bool) -> None:
    """Neither by the same process, at once, nor by one that has lost its cache: with it, a revocation would be
    forgotten.
    """

    async def test(listener: Listener, url: str, identity: cert.Identity) -> None:
        hellos = AnsweredHellos(tmp_path / "hellos")
        for repeated in (False, True):
            client = RegistryClient(url, identity)
            client.hellos = AnsweredHellos(tmp_path / "hellos") if restarted else hellos
            if repeated:
                listener.repeat()
                with refused("replays it"):
                    await client.get_network_config()
            else:
                assert await client.get_network_config()

    play(test)


def test_a_registry_may_repeat_its_answer_until_a_call_uses_it(play: Callable[[Test], World], tmp_path: Path) -> None:
    async def test(listener: Listener, url: str, identity: cert.Identity) -> None:
        client = RegistryClient(url, identity)
        client.hellos = AnsweredHellos(tmp_path / "hellos")
        await client._greet()
        await client._greet()
        assert (tmp_path / "hellos").stat().st_size == answered_hellos.SIZE
        assert await client.get_network_config()

    play(test)


def test_answers_to_others_do_not_fill_the_memory(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> None:
    """Anybody gets those from the registry, and once it is full, what is oldest in it would be taken again."""
    client = RegistryClient("http://127.0.0.1/", nodes["1/16"])
    client.hellos = AnsweredHellos(tmp_path / "hellos")
    others = next(each for name, each in nodes.items() if name != "1/16")
    encrypted = cert.encrypt(others.cert, bytes(20))
    with pytest.raises(RegistryKeyError):
        client._greeted(encrypted + cert.sign(authority.key, encrypted))
    assert not (tmp_path / "hellos").exists()


def test_the_memory_is_bounded_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answered_hellos, "LIMIT", 5)
    monkeypatch.setattr(answered_hellos, "REPEATED", 0.0)
    hellos = AnsweredHellos(tmp_path / "hellos")
    for number in range(9):
        assert hellos.take(bytes([number]))
    assert (tmp_path / "hellos").stat().st_size == 5 * answered_hellos.SIZE < LIMIT
    again = AnsweredHellos(tmp_path / "hellos")
    assert [again.take(bytes([number])) for number in (8, 4, 3)] == [False, False, True]


def test_a_damaged_memory_and_a_full_disk_do_not_keep_a_node_from_its_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hellos").write_bytes(b"half of on")
    assert AnsweredHellos(tmp_path / "hellos").take(b"answer")
    assert "is damaged" in caplog.text
    assert AnsweredHellos(tmp_path / "nowhere" / "hellos").take(b"answer")
    assert "Going on without it" in caplog.text


# --- certificates ---


class Registry:
    """Gives one certificate."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.certificate = certificate

    async def renew_certificate(self) -> x509.Certificate:
        return self.certificate

    get_ca = renew_certificate


def renewed(
    identity: cert.Identity, certificate: x509.Certificate, revoked: frozenset[int] = frozenset()
) -> cert.Identity | None:
    client: RegistryClient = Registry(certificate)  # type: ignore[assignment]
    return asyncio.run(renewal.renew(client, identity, revoked))


def test_a_node_never_goes_back_to_a_certificate_of_before(
    authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> None:
    first, key = nodes["1/16"].cert, nodes["1/16"].key

    def issue(serial: int, days: int) -> x509.Certificate:
        begin = pki.begin_of(first)
        return authority.issue(first.subject, key.public_key(), serial, begin, begin + timedelta(days=days))

    own = cert.Identity(authority.trust, issue(40, 365), key)
    assert renewed(own, own.cert) is None
    for serial, days in ((39, 364), (39, 365), (41, 364)):
        with pytest.raises(cert.CertError, match=f"certificate {serial}, which is older than ours, 40: it is not used"):
            renewed(own, issue(serial, days))
    for serial, days in ((41, 365), (41, 366), (39, 366)):
        made = renewed(own, issue(serial, days))
        assert made is not None
        assert made.cert.serial_number == serial
    # Where ours is revoked, what the registry issued since is right, though a clock was wrong when it issued ours.
    revoked = frozenset({39, 40})
    made = renewed(own, issue(41, 364), revoked)
    assert made is not None
    for serial, days, why in ((39, 366, "which is revoked"), (38, 364, "which is older than ours")):
        with pytest.raises(cert.CertError, match=why):
            renewed(own, issue(serial, days), revoked)


def test_a_renewal_that_was_recorded_is_not_taken(play: Callable[[Test], World]) -> None:
    world: World = play.world  # type: ignore[attr-defined]

    async def test(listener: Listener, url: str, identity: cert.Identity) -> None:
        world.now += 340 * DAY
        second = await renewal.renew(RegistryClient(url, identity), identity)
        assert second is not None
        world.now += 340 * DAY
        third = await renewal.renew(RegistryClient(f"http://127.0.0.1:{world.port}/", second), second)
        assert third is not None
        listener.repeat()
        with pytest.raises(cert.CertError, match="somebody in between replays an old answer"):
            await renewal.renew(RegistryClient(url, third), third)

    play(test)


def test_a_ca_with_which_our_own_certificate_is_not_believed_is_not_taken(
    authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> None:
    identity, ca = nodes["1/16"], authority.trust.ca
    now = pki.begin_of(identity.cert) + timedelta(days=1)

    def renew(certificate: x509.Certificate) -> cert.Identity | None:
        client: RegistryClient = Registry(certificate)  # type: ignore[assignment]
        return asyncio.run(renewal.renew_ca(client, identity, now))

    def later(begin: datetime, end: timedelta) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(ca.subject)
            .issuer_name(ca.subject)
            .serial_number(ca.serial_number)
            .not_valid_before(begin)
            .not_valid_after(pki.end_of(ca) + end)
            .public_key(ca.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(authority.key, hashes.SHA512())
        )

    assert renew(ca) is None
    good = renew(later(pki.begin_of(ca), timedelta(days=1)))
    assert good is not None
    good.trust.check(identity.cert, now)
    for certificate, why in (
        (later(pki.begin_of(ca), timedelta(days=-1)), "ends no later than ours"),
        (later(now + timedelta(days=2), timedelta(days=1)), "set the clock"),
        (cert.new_ca(nodes["0/16"].key, authority.trust.network, "x", "y@z", datetime.now(UTC)), "differs from ours"),
    ):
        with pytest.raises(cert.CertError, match=why):
            renew(certificate)
