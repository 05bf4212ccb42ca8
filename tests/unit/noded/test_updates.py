"""What the registry tells over time, by a registry that a test plays: parameters, certificates (wire.md 5.3, 2.3)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import json
import logging
import os
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import PROTOCOL, cert
from re6st.client.files import Files
from re6st.client.registry_client import RegistryClient, RegistryError
from re6st.core.prefix import Prefix
from re6st.core.wire import params
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.params import Parameters
from re6st.keys import pki
from re6st.linux import disk
from re6st.linux.process import Backoff
from re6st.noded import registry_updates
from re6st.noded.peer_cache import Cache
from re6st.noded.registry_updates import TooOld, Updates
from tests.unit.fake_program import until

NETWORK = IPv6Network("2001:db8:42::/48")
REGISTRY, OWN = Prefix(0, 16), Prefix(1, 16)
YEAR = timedelta(days=365)


class Registry:
    """Answers what it has, or raises it. Like RegistryClient, it is told of a new identity."""

    def __init__(self, authority: cert.Authority, identity: cert.Identity) -> None:
        self.authority, self.identity = authority, identity
        self.parameters: Parameters | Exception = self.version(1)
        self.certificate: x509.Certificate | Exception = OSError()
        self.ca: x509.Certificate | Exception = OSError()
        self.asked = 0
        self.renewed = 0
        self.presented: list[bytes] = []
        self.expected: Set[str] = frozenset()
        self.required: Set[str] = frozenset()

    def version(self, number: int, **changes: object) -> Parameters:
        """Parameters that are signed."""
        version = params.make_version(number, lambda data: cert.sign(self.authority.key, data))
        made = Parameters(
            registry_prefix=REGISTRY, version=version, protocol=PROTOCOL, extensions=KNOWN, babel_hello=0.5
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    async def get_network_config(self) -> bytes:
        self.asked += 1
        if isinstance(self.parameters, Exception):
            raise self.parameters
        values = self.parameters.public() | {"version": base64.b64encode(self.parameters.version).decode()}
        if self.parameters.valid_until is not None:
            values["valid_until"] = self.parameters.valid_until
        if self.parameters.babel_hmac_sign is not None:
            key = cert.encrypt(self.identity.cert, self.parameters.babel_hmac_sign)
            values["babel_hmac_sign"] = base64.b64encode(key).decode()
        return zlib.compress(json.dumps(values).encode())

    async def present_certificate(self, version: bytes) -> bool:
        self.presented.append(version)
        return False

    async def renew_certificate(self) -> x509.Certificate:
        self.renewed += 1
        if isinstance(self.certificate, Exception):
            raise self.certificate
        return self.certificate

    async def get_ca(self) -> x509.Certificate:
        if isinstance(self.ca, Exception):
            raise self.ca
        return self.ca


class World:
    def __init__(self, directory: Path, authority: cert.Authority, key_of: cert.Identity, *, ends: timedelta) -> None:
        now = datetime.now(UTC)
        ca = cert.new_ca(authority.key, NETWORK, "re6st.example.com", "x@example.com", now - timedelta(days=1))
        self.authority = cert.Authority(ca, authority.key)
        self.key = key_of.key
        self.files = Files(directory / "ca.crt", directory / "cert.crt", directory / "cert.key")
        identity = cert.Identity(self.authority.trust, self.issue(2, ends), self.key)
        for path, content in ((self.files.ca, ca), (self.files.cert, identity.cert)):
            path.write_bytes(cert.to_pem(content))
        self.registry = Registry(self.authority, identity)
        self.cache = Cache(directory / "cache.db")
        self.changes: list[tuple[Parameters, cert.Identity]] = []
        self.then: Callable[[], None] | None = None
        """What else a change has for a consequence."""
        self.connected = True
        self.updates = self.again()

    def again(self) -> Updates:
        """The same node, started again."""
        client: RegistryClient = self.registry  # type: ignore[assignment]
        self.updates = made = Updates(client, self.files, self.registry.identity, self.cache, self._changed)
        return made

    def _changed(self) -> None:
        self.changes.append((self.updates.parameters, self.updates.identity))
        if self.then is not None:
            self.then()

    def issue(self, serial: int, ends: timedelta, prefix: Prefix = OWN) -> x509.Certificate:
        now = datetime.now(UTC)
        subject = cert.subject_for(x509.Name([]), serial, prefix)
        return self.authority.issue(subject, self.key.public_key(), serial, now - timedelta(days=1), now + ends)

    def run(self, watch: Callable[[], Awaitable[object]]) -> None:
        """Keep everything up to date until `watch` returns."""

        async def main() -> None:
            task = asyncio.create_task(self.updates.run(self))
            try:
                async with asyncio.timeout(20):
                    await watch()
            finally:
                task.cancel()
                await asyncio.wait([task])
            assert task.cancelled()

        asyncio.run(main())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_updates, "FETCH_DELAY", 0.0)
    monkeypatch.setattr(registry_updates, "FETCH_RETRY", 0.01)
    monkeypatch.setattr(Backoff, "next", lambda self: 0.001)


@pytest.fixture
def make_world(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(ends: timedelta) -> World:
        made.append(World(tmp_path, authority, nodes["1/16"], ends=ends))
        return made[-1]

    yield make
    for world in made:
        world.cache.close(())


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(ends=YEAR)


# --- at start ---


def test_the_first_start_asks_until_the_registry_answers(world: World, caplog: pytest.LogCaptureFixture) -> None:
    good = world.registry.parameters

    async def main() -> Parameters:
        world.registry.parameters = RegistryError("registry http://x/: connection refused.")
        task = asyncio.create_task(world.updates.start())
        await until(lambda: world.registry.asked > 3)
        world.registry.parameters = good
        return await task

    started = asyncio.run(main())
    assert started == world.updates.parameters == good
    assert world.cache.load_parameters() == started
    assert "no network parameters yet: registry http://x/: connection refused." in caplog.text


def test_what_is_remembered_serves_without_the_registry(world: World) -> None:
    asyncio.run(world.updates.start())
    world.registry.parameters = RegistryError("down")
    asked = world.registry.asked
    assert asyncio.run(world.again().start()).version
    assert world.registry.asked == asked


def test_what_is_remembered_but_not_signed_does_not(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(world.registry.parameters, Parameters)
    forged = replace(world.registry.parameters, version=b"\x07" + bytes(256), client_count=1)
    world.cache.store_parameters(forged)
    assert asyncio.run(world.updates.start()).client_count == 10
    assert world.registry.asked == 1
    assert "not of this network" in caplog.text


def test_a_network_that_is_too_new_for_us_is_said_in_one_line(world: World) -> None:
    world.registry.parameters = world.registry.version(1, min_protocol=PROTOCOL + 1)
    with pytest.raises(TooOld, match=f"^this network wants protocol {PROTOCOL + 1}, .*: upgrade it$"):
        asyncio.run(world.updates.start())


def test_before_the_start_there_are_none(world: World) -> None:
    with pytest.raises(RuntimeError, match="no parameters"):
        _ = world.updates.parameters


# --- while running ---


def started(world: World) -> World:
    asyncio.run(world.updates.start())
    return world


def test_a_peers_newer_version_makes_us_ask(world: World) -> None:
    started(world)
    new = world.registry.version(2, client_count=3)
    world.registry.parameters = new

    async def watch() -> None:
        assert world.updates.hear(new.version) is None
        await until(lambda: world.changes)

    world.run(watch)
    assert world.changes == [(new, world.updates.identity)]
    assert world.updates.parameters == new
    assert world.cache.load_parameters() == new


def test_who_has_just_joined_asks_once_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_updates, "SECOND_LOOK", 0.01)
    started(world)
    world.registry.parameters = world.registry.version(2)

    async def watch() -> None:
        await until(lambda: world.changes)

    world.run(watch)
    assert world.registry.asked == 2


def test_a_peer_that_is_behind_gets_our_version(world: World) -> None:
    started(world)
    own = world.updates.parameters.version
    assert world.updates.hear(b"\0") == own
    assert world.updates.hear(b"") == own
    assert world.updates.hear(own) is None


@pytest.mark.parametrize("version", [b"\x09" + bytes(256), b"\xff" * 300, b"\x09", b"\xff"])
def test_a_version_that_is_not_signed_is_ignored(world: World, version: bytes) -> None:
    started(world)
    asked = world.registry.asked

    async def watch() -> None:
        assert world.updates.hear(version) is None
        await asyncio.sleep(0.05)

    world.run(watch)
    assert world.registry.asked == asked
    assert world.changes == []


def test_a_registry_that_is_down_is_asked_again(world: World) -> None:
    started(world)
    new = world.registry.version(2)
    world.registry.parameters = RegistryError("registry down.")

    async def watch() -> None:
        world.updates.hear(new.version)
        await until(lambda: world.registry.asked > 4)
        world.registry.parameters = new
        await until(lambda: world.changes)
        asked = world.registry.asked
        await asyncio.sleep(0.05)
        assert world.registry.asked == asked, "and then no more"

    world.run(watch)


def test_a_registry_that_is_down_for_days_is_one_line_and_then_obeyed(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Five minutes pass between two questions: two days are 576 of them."""
    monkeypatch.setattr(registry_updates, "FETCH_RETRY", 0.0)
    started(world)
    new = world.registry.version(2)
    world.registry.parameters = RegistryError("registry down.")
    caplog.set_level(logging.INFO)

    async def watch() -> None:
        world.updates.hear(new.version)
        await until(lambda: world.registry.asked > 576)
        assert len([record for record in caplog.records if "registry down" in record.message]) == 1
        world.registry.parameters = RegistryError("another reason.")
        await until(lambda: "another reason" in caplog.text)
        world.registry.parameters = new
        await until(lambda: world.changes)

    world.run(watch)


def test_a_registry_that_still_has_the_old_version_is_asked_again(world: World) -> None:
    started(world)
    new = world.registry.version(2)

    async def watch() -> None:
        world.updates.hear(new.version)
        await until(lambda: world.registry.asked > 4)
        assert world.changes == []
        assert {*world.registry.presented} == {new.version}, "its database may be an old copy"
        world.registry.parameters = new
        await until(lambda: world.changes)

    world.run(watch)


@pytest.mark.parametrize("what", ["older", "unsigned", "zero"])
def test_an_answer_that_is_older_or_not_signed_changes_nothing(world: World, what: str) -> None:
    """The registry is asked over plain HTTP; what is remembered must be what is in force."""
    world.registry.parameters = world.registry.version(5, client_count=5)
    started(world)
    good = world.updates.parameters
    bad = world.registry.version(4, client_count=4)
    world.registry.parameters = {
        "older": bad,
        "unsigned": replace(bad, version=b"\x09" + bytes(256)),
        "zero": replace(bad, version=b"\0"),
    }[what]

    async def watch() -> None:
        world.updates.refresh()
        await until(lambda: world.registry.asked > 1)
        await asyncio.sleep(0.05)

    world.run(watch)
    assert world.changes == []
    assert world.updates.parameters == good
    assert world.cache.load_parameters() == good


def test_a_running_node_goes_on_when_the_network_becomes_too_new(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    started(world)
    good = world.updates.parameters
    world.registry.parameters = world.registry.version(2, min_protocol=PROTOCOL + 1)

    async def watch() -> None:
        world.updates.refresh()
        await until(lambda: "upgrade it" in caplog.text)

    world.run(watch)
    assert world.updates.parameters == good


def test_the_registrys_node_asks_at_start_as_nobody_tells_it(world: World) -> None:
    world.registry.parameters = world.registry.version(1, registry_prefix=OWN)
    started(world)
    new = world.registry.version(2, registry_prefix=OWN)
    world.registry.parameters = new
    asyncio.run(world.again().start())

    async def watch() -> None:
        await until(lambda: world.changes)

    world.run(watch)


def test_who_may_have_been_the_last_older_node_asks_at_start(world: World) -> None:
    world.registry.parameters = world.registry.version(1, babel_hello=None)
    started(world)
    world.registry.parameters = world.registry.version(2)
    asyncio.run(world.again().start())

    async def watch() -> None:
        await until(lambda: world.changes)

    world.run(watch)
    assert world.updates.parameters.babel_hello == 0.5


@pytest.mark.parametrize("valid_until", [None, 1.0])
def test_who_looks_lost_twice_in_a_row_asks(
    world: World, monkeypatch: pytest.MonkeyPatch, valid_until: float | None
) -> None:
    monkeypatch.setattr(registry_updates, "LOST_FIRST", 0.02)
    world.registry.parameters = world.registry.version(1, valid_until=valid_until)
    started(world)
    if valid_until is None:
        world.connected = False
    asked = world.registry.asked

    async def watch() -> None:
        await until(lambda: world.registry.asked > asked)

    world.run(watch)


def test_who_is_not_understood_asks_at_once_but_not_again_and_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next", lambda self: 60.0)
    registry = world.registry
    first = world.updates
    asyncio.run(first.start())
    registry.asked = 0

    async def watch() -> None:
        first.doubt()
        await until(lambda: registry.asked == 1)
        first.doubt()
        await asyncio.sleep(0.05)
        assert registry.asked == 1, "not twice within a minute"
        registry.parameters = registry.version(2)
        first.refresh()
        await until(lambda: first.parameters == registry.parameters)
        first.doubt()
        await until(lambda: registry.asked == 3)  # it may be something else now

    world.run(watch)


def test_who_is_not_lost_does_not_ask(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_updates, "LOST_FIRST", 0.005)
    started(world)
    asked = world.registry.asked
    world.run(lambda: asyncio.sleep(0.05))
    assert world.registry.asked == asked


# --- certificates ---


def test_a_certificate_near_its_end_is_renewed(
    caplog: pytest.LogCaptureFixture, make_world: Callable[..., World]
) -> None:
    world = started(make_world(ends=timedelta(days=20)))
    new = world.registry.certificate = world.issue(9, YEAR)

    async def watch() -> None:
        await until(lambda: world.changes)

    world.run(watch)
    assert world.updates.identity.cert == new
    assert world.registry.identity is world.updates.identity, "the registry's client goes on with it"
    assert cert.load_pem(world.files.cert.read_bytes()) == new
    assert world.registry.renewed == 1
    assert "expires" not in caplog.text


def test_a_certificate_with_time_left_is_not(world: World) -> None:
    started(world)
    world.run(lambda: asyncio.sleep(0.05))
    assert world.registry.renewed == 0


def test_our_revoked_certificate_is_renewed_at_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    started(world)
    world.registry.certificate = world.issue(9, YEAR)
    world.registry.parameters = world.registry.version(2, crl=frozenset({2}))

    async def watch() -> None:
        await asyncio.sleep(0.01)
        world.updates.refresh()
        await until(lambda: world.updates.identity.cert.serial_number == 9)

    world.run(watch)
    assert "our certificate 2 is revoked" in caplog.text


@pytest.mark.parametrize("answer", [RegistryError("registry down."), cert.CertError("no good")])
def test_a_renewal_that_fails_leaves_everything_as_it_was(
    answer: Exception,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    make_world: Callable[..., World],
) -> None:
    monkeypatch.setattr(registry_updates, "RENEW_CHECK", 0.01)
    world = started(make_world(ends=timedelta(days=20)))
    world.registry.certificate = answer
    before = world.files.cert.read_bytes()

    async def watch() -> None:
        await until(lambda: world.registry.renewed)
        await asyncio.sleep(0.1)

    world.run(watch)
    assert world.registry.renewed == 1, "the next try is a day later"
    assert world.files.cert.read_bytes() == before
    assert world.changes == []
    assert str(answer) in caplog.text
    assert caplog.text.count("our certificate expires in 20 days and is not renewed yet") == 1


def test_while_the_registry_is_away_the_end_of_a_certificate_is_said_ever_more_urgently(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, make_world: Callable[..., World]
) -> None:
    """A month in hours, each of which takes a moment."""
    monkeypatch.setattr(registry_updates, "RENEW_CHECK", 0.0)
    world = started(make_world(ends=timedelta(days=31)))
    world.registry.certificate = RegistryError("registry down.")
    first, hours = datetime.now(UTC), 0

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            nonlocal hours
            hours += 1
            return first + timedelta(minutes=30 * hours)  # read twice an hour

    monkeypatch.setattr(registry_updates, "datetime", Clock)

    async def watch() -> None:
        await until(lambda: "has expired" in caplog.text)
        world.registry.certificate = world.issue(9, YEAR)
        await until(lambda: world.changes)

    world.run(watch)
    said = [
        (r.levelname, re.sub(r" \d+ h", " hours", r.message.split(" and")[0]))
        for r in caplog.records
        if "not renewed yet" in r.message
    ]
    assert said == [
        *(("WARNING", f"our certificate expires in {days} days") for days in (30, 14, 7)),
        ("ERROR", "our certificate expires in 3 days"),
        ("ERROR", "our certificate expires in hours"),
        ("ERROR", "our certificate has expired"),
    ]
    assert "certificate renewal: registry down. Next try in 1 d." in caplog.text


def test_a_certificate_that_cannot_be_written_is_used_anyway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make_world: Callable[..., World]
) -> None:
    world = make_world(ends=timedelta(days=20))
    world.files = replace(world.files, cert=tmp_path / "nowhere" / "cert.crt")
    world.again()
    started(world)
    world.registry.certificate = world.issue(9, YEAR)

    async def watch() -> None:
        await until(lambda: world.changes)
        await until(lambda: "certificate renewal" in caplog.text)

    world.run(watch)
    assert world.updates.identity.cert.serial_number == 9


def test_one_that_could_not_be_written_is_not_given_up_for_the_file_that_is_still_there(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, make_world: Callable[..., World]
) -> None:
    """The file's is about to end, or revoked."""
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    world = started(make_world(ends=timedelta(days=20)))
    world.files.key.write_bytes(cert.key_to_pem(world.key))
    world.registry.certificate = world.issue(9, YEAR)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk, "replace_file", refuse)

    async def watch() -> None:
        await until(lambda: "certificate renewal" in caplog.text)
        await asyncio.sleep(0.05)
        os.utime(world.files.cert, (1, 1))
        await asyncio.sleep(0.05)

    world.run(watch)
    assert world.updates.identity.cert.serial_number == 9


def test_one_that_could_not_be_written_is_written_later(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk was full. What somebody else puts there meanwhile is his."""
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    world.registry.parameters = world.registry.version(1, crl=frozenset({2}))
    world.files.key.write_bytes(cert.key_to_pem(world.key))
    started(world)
    world.registry.certificate = world.issue(9, YEAR)
    write, full = disk.replace_file, True

    def try_to(path: Path, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    monkeypatch.setattr(disk, "replace_file", try_to)

    async def watch() -> None:
        nonlocal full
        await until(lambda: "No space left on device. It is used" in caplog.text)
        full = False
        await until(lambda: cert.load_pem(world.files.cert.read_bytes()).serial_number == 9)

    world.run(watch)
    assert caplog.text.count("No space left") == 1
    assert world.updates.identity.cert.serial_number == 9


@pytest.mark.parametrize("restart", [False, True])
def test_a_revoked_certificate_is_renewed_whatever_fails_first(
    restart: bool, caplog: pytest.LogCaptureFixture, make_world: Callable[..., World]
) -> None:
    """At a mass revocation the registry turns many away; and a node may be restarted just then."""
    world = started(make_world(ends=YEAR))
    world.registry.parameters = world.registry.version(2, crl=frozenset({2}))
    world.registry.certificate = RegistryError("registry down.")

    async def tries() -> None:
        await asyncio.sleep(0.01)
        world.updates.refresh()
        await until(lambda: world.registry.renewed > 3)

    async def watch() -> None:
        if not restart:
            await tries()
        world.registry.certificate = world.issue(9, YEAR)
        await until(lambda: world.updates.identity.cert.serial_number == 9)

    if restart:
        world.run(tries)
        world.registry.parameters = RegistryError("registry down.")  # it has no other news
        world.again()
        started(world)
    world.run(watch)
    assert cert.load_pem(world.files.cert.read_bytes()).serial_number == 9


def test_a_second_revocation_is_followed_as_the_first(world: World) -> None:
    started(world)

    async def watch() -> None:
        await asyncio.sleep(0.01)
        for number, (old, new) in enumerate(((2, 9), (9, 10), (10, 11)), 2):
            world.registry.certificate = world.issue(new, YEAR)
            world.registry.parameters = world.registry.version(number, crl=frozenset(range(2, old + 1)))
            world.updates.refresh()
            await until(lambda new=new: world.updates.identity.cert.serial_number == new)  # type: ignore[misc]

    world.run(watch)
    assert world.registry.renewed == 3


def test_a_registry_that_hands_out_what_is_revoked_is_not_asked_without_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next", lambda self: 3600.0)
    world.registry.parameters = world.registry.version(1, crl=frozenset({2, 9}))
    started(world)
    world.registry.certificate = world.issue(9, YEAR)

    async def watch() -> None:
        await until(lambda: world.registry.renewed)
        await asyncio.sleep(0.05)

    world.run(watch)
    assert world.registry.renewed == 1


def test_an_expired_certificate_is_not_left_for_a_day(make_world: Callable[..., World]) -> None:
    """A machine that was off for long starts while its line is not up yet."""
    world = started(make_world(ends=timedelta(hours=-1)))
    world.registry.certificate = RegistryError("registry down.")

    async def watch() -> None:
        await until(lambda: world.registry.renewed > 1)
        world.registry.certificate = world.issue(9, YEAR)
        await until(lambda: world.changes)

    world.run(watch)


def test_a_ca_near_its_end_is_renewed_but_not_by_another_one(
    world: World, monkeypatch: pytest.MonkeyPatch, nodes: dict[str, cert.Identity]
) -> None:
    monkeypatch.setattr(cert, "RENEW_BEFORE", timedelta(days=36500))
    now = datetime.now(UTC)
    other = cert.new_ca(nodes["0/16"].key, NETWORK, "evil", "x@example.com", now)
    newer = cert.new_ca(world.authority.key, NETWORK, "re6st.example.com", "x@example.com", now)
    monkeypatch.setattr(registry_updates, "RENEW_CHECK", 0.01)
    monkeypatch.setattr(registry_updates, "RENEW_RETRY", 0.0)
    started(world)
    world.registry.ca = other

    async def watch() -> None:
        await asyncio.sleep(0.1)
        assert world.updates.identity.trust.ca != other
        world.registry.ca = newer
        await until(lambda: world.updates.identity.trust.ca == newer)

    world.run(watch)
    assert cert.load_pem(world.files.ca.read_bytes()) == newer


def test_the_log_names_no_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.registry.parameters = world.registry.version(1, babel_hmac_sign=b"SECRETKEYSECRET!")
    started(world)
    with contextlib.suppress(TimeoutError):
        world.run(lambda: asyncio.sleep(0.01))
    assert world.updates.parameters.babel_hmac_sign == b"SECRETKEYSECRET!"
    for text in (caplog.text, repr(world.updates.parameters)):
        assert "SECRETKEY" not in text
        assert b"SECRETKEY".hex() not in text


# --- files that somebody else replaced ---


def put(world: World, new: x509.Certificate, key: rsa.RSAPrivateKey | None = None) -> None:
    """As re6st-conf does."""
    disk.replace_file(world.files.cert, cert.to_pem(new))
    disk.replace_file(world.files.key, cert.key_to_pem(key or world.key))


def test_a_certificate_put_into_its_place_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    put(world, world.registry.identity.cert)
    started(world)
    key = cert.new_key()
    subject = cert.subject_for(x509.Name([]), 2, OWN)
    now = datetime.now(UTC)
    new = world.authority.issue(subject, key.public_key(), 9, now, now + YEAR)

    async def watch() -> None:
        await asyncio.sleep(0.05)
        assert world.changes == [], "what is the same is no news"
        put(world, new, key)
        await until(lambda: world.changes)

    world.run(watch)
    assert world.updates.identity.cert == world.registry.identity.cert == new
    assert pki.same_key(world.updates.identity.key.public_key(), key.public_key())


def test_what_does_not_fit_is_said_once_and_left(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    started(world)
    other = world.issue(9, YEAR, prefix=Prefix(7, 16))

    async def watch() -> None:
        for text, certificate, key in (
            ("does not belong to", world.issue(8, YEAR), cert.new_key()),
            ("is for 7/16, of another subnet", other, world.key),
        ):
            put(world, certificate, key)
            await until(lambda: text in caplog.text)  # noqa: B023
            await asyncio.sleep(0.05)
            assert caplog.text.count(text) == 1

    world.run(watch)
    assert world.changes == []


def test_a_registry_that_knows_another_key_has_the_files_read_at_once(world: World) -> None:
    """re6st-conf rekey has just been there."""
    put(world, world.registry.identity.cert)
    started(world)
    world.updates._look_at_files()
    new = world.issue(9, YEAR)
    put(world, new)
    good = world.registry.version(2)
    world.registry.parameters = RegistryError("not encrypted for our key")

    def changed() -> None:
        world.registry.parameters = good

    world.then = changed

    async def watch() -> None:
        world.updates.refresh()
        await until(lambda: world.updates.parameters == good)

    world.run(watch)
    assert world.changes[0][1].cert == new


@pytest.mark.parametrize("seen", [True, False])
def test_a_key_that_was_changed_while_a_renewal_was_under_way_stays(
    authority: cert.Authority, monkeypatch: pytest.MonkeyPatch, seen: bool, make_world: Callable[..., World]
) -> None:
    """The certificate for the old one, that comes then, must not take the place of the new one's."""
    world = started(make_world(ends=timedelta(days=20)))
    key, now = cert.new_key(), datetime.now(UTC)
    new = world.authority.issue(cert.subject_for(x509.Name([]), 9, OWN), key.public_key(), 9, now, now + YEAR)
    late = world.issue(8, YEAR)

    async def renew() -> x509.Certificate:
        put(world, new, key)
        assert not seen or world.updates._look_at_files()
        return late

    monkeypatch.setattr(world.registry, "renew_certificate", renew)

    async def watch() -> None:
        await until(lambda: world.changes)
        await asyncio.sleep(0.05)

    world.run(watch)
    files = world.files
    for identity in (world.updates.identity, cert.Identity.load(files.ca, files.cert, files.key, datetime.now(UTC))):
        assert identity.cert == new
        assert pki.same_key(identity.key.public_key(), key.public_key())


def test_of_a_registry_of_a_later_protocol_that_is_not_ours_nothing_is_assumed(world: World) -> None:
    world.registry.parameters = world.registry.version(1, protocol=11, extensions=frozenset())
    started(world)
    assert world.updates.parameters.protocol == 11
    assert world.updates.parameters.babel_hello is None


def test_the_client_learns_what_the_registry_could_do_before(world: World) -> None:
    started(world)
    assert world.registry.expected == KNOWN


def test_a_node_that_lacks_what_the_network_requires_stops(world: World) -> None:
    world.registry.parameters = world.registry.version(1, require=frozenset({"of-a-later-version"}))
    with pytest.raises(TooOld, match=r"^this network requires of-a-later-version, .*: upgrade it$"):
        started(world)


def test_what_the_network_requires_is_required_of_its_registry(world: World) -> None:
    world.registry.parameters = world.registry.version(1, require=frozenset({"sealed-calls"}))
    started(world)
    assert world.registry.required == {"sealed-calls"}
