"""What the registry tells over time: parameters, at the start and while the node runs (wire.md 5.3)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

import pytest

from re6st import PROTOCOL
from re6st.client.registry_client import RegistryError
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.params import Parameters
from re6st.linux.process import Backoff
from re6st.noded import registry_updates
from re6st.noded.registry_updates import TooOld
from tests.unit.fake_program import until
from tests.unit.registry_updates_world import OWN, World, started


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
        assert world.updates.is_behind()
        world.registry.parameters = new
        await until(lambda: world.changes)
        assert not world.updates.is_behind()
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


def test_of_a_registry_of_a_later_protocol_that_is_not_ours_nothing_is_assumed(world: World) -> None:
    world.registry.parameters = world.registry.version(1, protocol=11, extensions=frozenset())
    started(world)
    assert world.updates.parameters.protocol == 11
    assert world.updates.parameters.babel_hello is None


def test_the_client_learns_what_the_registry_could_do_before(world: World) -> None:
    started(world)
    assert world.registry.expected == KNOWN


def test_the_client_learns_of_other_registries_and_forgets_them(world: World) -> None:
    def known() -> list[str]:
        return [each["url"] for each in world.registry.registries.record()]

    world.registry.parameters = world.registry.version(1, registries=("http://b.example.com/", "nonsense"))
    started(world)
    assert known() == ["http://192.0.2.1", "http://b.example.com"]
    world.updates._take(world.registry.version(2, registries=("http://c.example.com/",)))
    assert known() == ["http://192.0.2.1", "http://c.example.com"]
    world.updates._use_parameters(world.registry.version(3, registries=("http://d.example.com/",), version=b"\0"))
    assert known() == ["http://192.0.2.1"], "nobody signed that version"


def test_a_node_that_lacks_what_the_network_requires_stops(world: World) -> None:
    world.registry.parameters = world.registry.version(1, require=frozenset({"of-a-later-version"}))
    with pytest.raises(TooOld, match=r"^this network requires of-a-later-version, .*: upgrade it$"):
        started(world)


def test_what_the_network_requires_is_required_of_its_registry(world: World) -> None:
    world.registry.parameters = world.registry.version(1, require=frozenset({"sealed-calls"}))
    started(world)
    assert world.registry.required == {"sealed-calls"}


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
