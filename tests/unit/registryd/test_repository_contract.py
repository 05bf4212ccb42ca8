"""What a repository promises (registryd/repository.py), whichever store keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import ROOT, AllocationError
from re6st.core.registry.clock import Marks
from re6st.core.registry.presence import Stay
from re6st.core.routing.babel_keys import KeyState
from re6st.registryd.records import (
    NODE_SORTS,
    NODE_STATES,
    Issued,
    LastCall,
    ListedNode,
    NodeFilter,
    NodeSearch,
    NodeSelection,
    Slot,
    StoredEvent,
    Token,
)
from re6st.registryd.repository import Changes, Conflict, Lists, NotFound, Queries, Repository
from re6st.registryd.sqlite.store import Store
from tests.postgresql_cluster import Opener

T = TypeVar("T")

NOW = datetime(2027, 6, 1, tzinfo=UTC)
MOMENT = NOW.timestamp()
DAY = 86400
GRACE = 100 * DAY


class World:
    """A store, and certificates to put into it."""

    def __init__(self, path: Path, opener: Opener | None, authority: cert.Authority, key: Any) -> None:
        self.path = path
        self.authority = authority
        self.key = key
        self._opener = opener
        self.store = self._open()

    def _open(self) -> Repository:
        network = self.authority.trust.network
        return Store(self.path, network) if self._opener is None else self._opener(network)

    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()

    def make(self, days: float = 365) -> Callable[[Slot], x509.Certificate]:
        def certificate(slot: Slot) -> x509.Certificate:
            subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
            return self.authority.issue(subject, self.key, slot.serial, NOW, NOW + timedelta(days=days))

        return certificate

    def change(self, job: Callable[[Changes], T]) -> T:
        return asyncio.run(_await(self.store.change(job)))

    def read(self, query: Callable[[Queries], T]) -> T:
        return asyncio.run(_await(self.store.read(query)))

    def browse(self, query: Callable[[Lists], T]) -> T:
        return asyncio.run(_await(self.store.browse(query)))

    def issue(self, length: int = 16, email: str | None = None, days: float = 365) -> Issued:
        return self.change(lambda changes: changes.issue(ROOT, length, email, self.make(days)))

    def renew(self, old: Issued, days: float = 365) -> Issued:
        return self.change(
            lambda changes: changes.renew(old, lambda serial: self.make(days)(Slot(old.prefix, 1, serial)))
        )

    def number(self, prefix: Prefix) -> int | None:
        pem = self.read(lambda queries: queries.pem(prefix))
        assert pem is not None
        return cert.number_of_cert(cert.load_pem(pem))

    def leaves(self) -> set[Prefix]:
        return self.change(lambda changes: set(changes.free_leaves()))


async def _await(result: Awaitable[T]) -> T:
    return await result


@pytest.fixture
def world(
    tmp_path: Path, opener: Opener | None, authority: cert.Authority, nodes: dict[str, cert.Identity]
) -> Iterator[World]:
    made = World(tmp_path / "registry.db", opener, authority, nodes["1/16"].key.public_key())
    yield made
    made.store.close()


def test_certificates_get_prefix_number_and_serial_in_turn(world: World) -> None:
    assert world.read(lambda queries: queries.registry_prefix()) is None
    issued = [world.issue() for _ in range(3)]
    assert [each.prefix.cn for each in issued] == ["0/16", "1/16", "2/16"]
    assert [each.serial for each in issued] == [1, 2, 3]
    assert [world.number(each.prefix) for each in issued] == [0, 1, 2]
    assert world.read(lambda queries: queries.registry_prefix()) == Prefix(0, 16)
    assert world.read(lambda queries: queries.issued(Prefix(1, 16))) == issued[1]
    assert world.read(lambda queries: queries.count()) == 3
    assert world.read(lambda queries: queries.longest_prefix()) == 16
    assert world.read(lambda queries: queries.is_used(Prefix(1, 16)))
    assert world.read(lambda queries: queries.is_used(Prefix(2, 17)))
    assert not world.read(lambda queries: queries.is_used(Prefix(3, 16)))


def test_a_freed_number_and_prefix_are_given_again(world: World) -> None:
    for _ in range(4):
        world.issue()
    world.change(lambda changes: changes.evict(Prefix(2, 16), MOMENT))
    assert world.read(lambda queries: queries.crl()) == [3]
    again = world.issue()
    assert (again.prefix.cn, again.serial, world.number(again.prefix)) == ("2/16", 5, 2)
    assert world.number(world.issue().prefix) == 4


def test_all_is_the_same_after_a_restart(world: World) -> None:
    for _ in range(4):
        world.issue()
    world.change(lambda changes: changes.evict(Prefix(1, 16), MOMENT))
    before = world.leaves()
    world.reopen()
    assert world.leaves() == before
    assert [world.issue().prefix.cn for _ in range(2)] == ["1/16", "4/16"]
    assert [world.number(Prefix(n, 16)) for n in (1, 4)] == [1, 4]


def test_the_first_prefix_is_never_given_again(world: World) -> None:
    world.issue()
    world.change(lambda changes: changes.evict(Prefix(0, 16), MOMENT))
    assert world.issue().prefix.cn == "1/16"
    world.reopen()
    assert world.issue().prefix.cn == "2/16"
    assert world.read(lambda queries: queries.pem(Prefix(0, 16))) is None


def test_a_prefix_that_is_kept_or_taken_is_given_to_nobody(world: World) -> None:
    for _ in range(3):
        world.issue()
    world.change(lambda changes: changes.evict(Prefix(1, 16), MOMENT, keep=True))
    taken = [Prefix(3, 16), Prefix(4, 15)]
    given = world.change(lambda changes: changes.issue(ROOT, 16, None, world.make(), taken))
    assert not any(each.contains(given.prefix) for each in taken)
    assert given.prefix not in (Prefix(1, 16), *taken)
    assert world.read(lambda queries: queries.is_used(Prefix(3, 16))), "reserved"


def test_communities_have_their_own_prefixes(world: World) -> None:
    world.issue()
    community = Prefix(0b101, 3)
    made = [world.change(lambda changes: changes.issue(community, 8, None, world.make())) for _ in range(3)]
    assert all(community.contains(each.prefix) and each.prefix.length == 11 for each in made)
    assert len({each.prefix for each in made}) == 3


def test_a_failing_job_undoes_itself_alone(world: World) -> None:
    def fails(changes: Changes) -> None:
        changes.issue(ROOT, 16, None, world.make())
        raise NotFound("after the change")

    async def together() -> list[object]:
        def issue(changes: Changes) -> Issued:
            return changes.issue(ROOT, 16, None, world.make())

        calls = [world.store.change(job) for job in (issue, fails, issue, fails, issue)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(together())
    found = [each.prefix.cn if isinstance(each, Issued) else type(each) for each in results]
    assert found == ["0/16", NotFound, "1/16", NotFound, "2/16"]
    assert [world.number(Prefix(n, 16)) for n in range(3)] == [0, 1, 2]
    assert world.read(lambda queries: queries.config("serial")) == 3


def test_no_space_is_an_error_that_changes_nothing(world: World) -> None:
    before = world.leaves()
    with pytest.raises(AllocationError):
        world.issue(length=81)
    assert world.leaves() == before
    assert world.issue().serial == 1


def test_clean_up_frees_what_ended_long_ago(world: World) -> None:
    world.issue(days=3650)
    world.issue(days=1)
    world.change(lambda changes: changes.add_token("abcdefgh", "a@b", 16, MOMENT))
    later = MOMENT + DAY + GRACE
    assert world.read(lambda queries: queries.first_deadline(GRACE)) == MOMENT + GRACE
    world.change(lambda changes: changes.clean_up(later - 1, GRACE))
    assert world.read(lambda queries: queries.token("abcdefgh")) is None
    assert world.read(lambda queries: queries.pem(Prefix(1, 16))) is not None
    assert world.read(lambda queries: queries.first_deadline(GRACE)) == later
    world.change(lambda changes: changes.clean_up(later, GRACE))
    assert world.read(lambda queries: queries.pem(Prefix(1, 16))) is None
    assert world.issue().prefix.cn == "1/16"


def test_clean_up_never_drops_the_registry_node_and_merges_what_is_free(world: World) -> None:
    for _ in range(5):
        world.issue()
    world.change(lambda changes: changes.clean_up(MOMENT + 10 * 365 * DAY, GRACE))
    assert world.read(lambda queries: queries.pem(Prefix(0, 16))) is not None
    assert world.read(lambda queries: queries.count()) == 1
    assert world.read(lambda queries: queries.first_deadline(GRACE)) is None
    assert world.leaves() == {Prefix(1, length) for length in range(1, 17)}


def test_revocations_end_with_their_certificates(world: World) -> None:
    world.issue(days=3650)
    issued = world.issue(days=1)
    assert world.change(lambda changes: changes.revoke(issued.serial, MOMENT)) == issued.prefix
    with pytest.raises(Conflict):
        world.change(lambda changes: changes.revoke(issued.serial, MOMENT))
    with pytest.raises(NotFound):
        world.change(lambda changes: changes.revoke(77, MOMENT))
    assert world.read(lambda queries: queries.crl()) == [2]
    assert world.read(lambda queries: queries.is_revoked(2))
    assert not world.change(lambda changes: changes.clean_up(MOMENT, GRACE))
    assert world.change(lambda changes: changes.clean_up(MOMENT + DAY + 1, GRACE))
    assert world.read(lambda queries: queries.crl()) == []


def test_eviction_revokes_the_renewed_certificate_too(world: World) -> None:
    world.issue()
    old = world.issue(email="a@b")
    new = world.renew(old)
    assert new.serial == 3
    assert world.read(lambda queries: queries.issued(old.prefix)) == new
    assert world.browse(lambda lists: lists.older_serials(old.prefix)) == [2]
    world.change(lambda changes: changes.evict(old.prefix, MOMENT, "lost"))
    assert world.read(lambda queries: queries.crl()) == [2, 3]
    found = world.browse(lambda lists: lists.revoked(0, 10))
    assert [(each.serial, each.prefix, each.email, each.reason) for each in found] == [
        (2, old.prefix, "a@b", "lost"),
        (3, old.prefix, "a@b", "lost"),
    ]
    with pytest.raises(NotFound):
        world.change(lambda changes: changes.evict(old.prefix, MOMENT))


def test_replaced_certificates_are_revoked_once(world: World) -> None:
    old = world.issue()
    new = world.renew(old)
    revoke = lambda changes: changes.revoke_superseded(old.prefix, MOMENT, "another key")  # noqa: E731
    assert world.change(revoke) == [old.serial]
    assert world.change(revoke) == []
    assert world.read(lambda queries: queries.issued(old.prefix)) == new
    world.change(lambda changes: changes.revoke_unknown(1000, MOMENT + DAY))
    assert world.read(lambda queries: queries.crl()) == [old.serial, 1000]


def test_what_was_forgotten_is_stored_again(world: World, nodes: dict[str, cert.Identity]) -> None:
    world.issue(email="a@b")
    later = world.make()(Slot(Prefix(5, 16), 9, 500))
    world.change(lambda changes: changes.restore(Prefix(5, 16), later))
    assert world.read(lambda queries: queries.pem(Prefix(5, 16))) == cert.to_pem(later)
    assert all(not each.contains(Prefix(5, 16)) for each in world.leaves())
    newer = world.make()(Slot(Prefix(0, 16), 7, 501))
    world.change(lambda changes: changes.restore(Prefix(0, 16), newer))
    found = world.browse(lambda lists: lists.node(Prefix(0, 16)))
    assert found is not None
    assert (found.serial, found.number, found.email) == (501, 7, "a@b"), "its key is the same"
    with pytest.raises(Conflict):
        world.change(lambda changes: changes.restore(Prefix(0, 17), later))
    assert [world.number(world.issue().prefix) for _ in range(3)] == [0, 1, 2], "9 and 7 are used"


def test_tokens_are_spent_once(world: World) -> None:
    world.change(lambda changes: changes.add_token("t", "a@b", 16, 1.0))
    with pytest.raises(Conflict):
        world.change(lambda changes: changes.add_token("t", "c@d", 16, 1.0))
    world.change(lambda changes: changes.add_token("u", "c@d", 8, 1.0, 50.0))
    assert world.read(lambda queries: queries.token("t")) == Token("a@b", 16)
    assert world.change(lambda changes: changes.token("u", 49.0)) == Token("c@d", 8)
    assert world.read(lambda queries: queries.token("u", 51.0)) is None
    assert [each.token for each in world.browse(lambda lists: lists.tokens(GRACE, "", 10))] == ["t", "u"]
    assert world.browse(lambda lists: sorted(lists.every_token())) == ["t", "u"]

    async def spend() -> list[bool]:
        return await asyncio.gather(*(world.store.change(lambda changes: changes.delete_token("t")) for _ in range(9)))

    assert sum(asyncio.run(spend())) == 1
    for strange in ("", "\0", "t" * 300):
        assert world.change(lambda changes, strange=strange: changes.token(strange)) is None  # type: ignore[misc]


def test_a_token_for_several_is_used_as_often_as_it_says(world: World) -> None:
    world.change(lambda changes: changes.add_token("t", "a@b", 16, 1.0, uses=20, tags=("paris", "web")))
    world.change(lambda changes: changes.add_token("u", "", 16, 1.0, tags=("db",)))
    assert world.read(lambda queries: queries.token("t")) == Token("a@b", 16, 20, ("paris", "web"))

    def enrol(changes: Changes) -> bool:
        known = changes.token("t")
        if known is None:
            return False
        changes.use_token("t")
        changes.set_tags(changes.issue(ROOT, known.prefix_length, known.email, world.make()).prefix, known.tags)
        return True

    def fail(changes: Changes) -> None:
        enrol(changes)
        raise NotFound("as if the certificate could not be made")

    async def spend() -> list[bool]:
        tried = [world.store.change(enrol) for _ in range(30)]
        with pytest.raises(NotFound):
            await world.store.change(fail)
        return await asyncio.gather(*tried)

    assert sum(asyncio.run(spend())) == 20
    assert world.read(lambda queries: queries.token("t")) is None
    assert world.read(lambda queries: queries.count()) == 20
    (left,) = world.browse(lambda lists: lists.tokens(GRACE, "", 10))
    assert (left.token, left.uses, left.tags) == ("u", 1, ("db",))
    assert {node.tags for node in world.browse(lambda lists: lists.nodes(NodeFilter(), "", 50))} == {("paris", "web")}
    world.change(lambda changes: changes.use_token("u"))
    world.change(lambda changes: changes.add_token("t", "", 16, 1.0))
    assert world.read(lambda queries: queries.token("t")) == Token("", 16), "nothing of the one before is left"


def test_tags_belong_to_a_node_as_long_as_it_is_one(world: World) -> None:
    def tags(number: int) -> tuple[str, ...]:
        found = world.browse(lambda lists: lists.node(Prefix(number, 16)))
        assert found is not None
        return found.tags

    issued = [world.issue() for _ in range(3)]
    for each in issued[1:]:
        world.change(lambda changes, each=each: changes.set_tags(each.prefix, ("web",)))  # type: ignore[misc]
    assert [tags(number) for number in range(3)] == [(), ("web",), ("web",)]
    world.renew(issued[1])
    world.reopen()
    assert tags(1) == ("web",), "renewed"
    world.change(lambda changes: changes.set_tags(issued[1].prefix, ("db", "lab")))
    assert tags(1) == ("db", "lab")
    world.change(lambda changes: changes.evict(issued[2].prefix, MOMENT))
    assert world.issue().prefix == issued[2].prefix
    assert tags(2) == (), "another node has the prefix"
    world.change(lambda changes: changes.set_tags(issued[1].prefix, ()))
    assert tags(1) == ()
    with pytest.raises(NotFound):
        world.change(lambda changes: changes.set_tags(Prefix(9, 16), ("web",)))


def test_a_node_with_another_key_does_not_inherit_tags(world: World) -> None:
    old = world.issue()
    later = world.make()
    for key, kept in ((world.key, ("web",)), (cert.new_key().public_key(), ())):
        world.change(lambda changes: changes.set_tags(old.prefix, ("web",)))
        world.key = key
        again = later(Slot(old.prefix, 0, 500 if kept else 501))
        world.change(lambda changes, again=again: changes.restore(old.prefix, again))  # type: ignore[misc]
        found = world.browse(lambda lists: lists.node(old.prefix))
        assert found is not None
        assert found.tags == kept


def test_who_is_online_since_when_is_kept_as_long_as_the_node_is_one(world: World) -> None:
    def stay(number: int) -> Stay | None:
        found = world.browse(lambda lists: lists.node(Prefix(number, 16)))
        assert found is not None
        return found.stay

    issued = [world.issue().prefix for _ in range(3)]
    first = [Stay(issued[0], True, 100), Stay(issued[1], True, 200), Stay(Prefix(9, 16), True, 300)]
    world.change(lambda changes: changes.mark_stays(first))
    assert world.read(lambda queries: queries.stays()) == first[:2], "a node without a certificate is none"
    world.change(lambda changes: changes.mark_stays([Stay(issued[1], False, 500)]))
    world.reopen()
    assert world.read(lambda queries: queries.stays()) == first[:1]
    assert [stay(number) for number in range(3)] == [first[0], Stay(issued[1], False, 500), None]
    gone = [world.browse(lambda lists, now=now: lists.figures(now, 0, 0, GRACE, 0).gone) for now in (900, 1100, 86901)]  # type: ignore[misc]
    assert gone == [0, 1, 0]
    world.change(lambda changes: changes.evict(issued[1], MOMENT))
    assert world.issue().prefix == issued[1]
    assert stay(1) is None


def test_calls_events_and_the_times_of_the_clock_are_kept(world: World) -> None:
    world.issue()
    world.issue()
    calls = [
        LastCall(Prefix(0, 16), 100, 10, "1.0, Linux", "a b"),
        LastCall(Prefix(1, 16), 90, 7, "", ""),
        LastCall(Prefix(9, 16), 95, 7, "", ""),
    ]
    world.change(lambda changes: changes.mark_seen(calls))
    assert world.read(lambda queries: queries.lacking("b")) == [Prefix(1, 16)]
    assert world.read(lambda queries: queries.lacking("c", 1)) == [Prefix(0, 16)]
    assert world.read(lambda queries: queries.without("a", MOMENT)) == [Prefix(1, 16)]
    assert world.read(lambda queries: queries.members(ROOT, 5)) == [Prefix(0, 16), Prefix(1, 16)]
    assert world.read(lambda queries: queries.members(Prefix(1, 16), 5)) == [Prefix(1, 16)]
    events = [StoredEvent(number, 5, "mail", None, "sent", 1) for number in (1, 2)]
    world.change(lambda changes: changes.replace_events("mail", events))
    world.change(lambda changes: changes.replace_events("mail", events[1:]))
    assert world.read(lambda queries: queries.events(5)) == events[1:]
    assert world.read(lambda queries: queries.marks()) is None
    for marks in (Marks(5, 7), Marks(6, 6)):
        world.change(lambda changes, marks=marks: changes.set_marks(marks))  # type: ignore[misc]
        assert world.read(lambda queries: queries.marks()) == marks
    assert world.read(lambda queries: queries.newest_issue()) is not None


@pytest.mark.parametrize("value", ["a text", 7, 1 << 61, 2.5, b"\0\xff", "", b""])
def test_a_value_of_the_configuration_comes_back_as_it_was(world: World, value: Any) -> None:
    world.change(lambda changes: changes.set_config("x", value))
    found = world.read(lambda queries: queries.config("x"))
    assert (found, type(found)) == (value, type(value))
    world.change(lambda changes: changes.set_config("x", None))
    assert world.read(lambda queries: queries.config("x")) is None


def test_the_keys_of_babel_are_kept(world: World) -> None:
    state = KeyState((b"a", b"b", None), 12.0, None)
    world.change(lambda changes: changes.set_babel_state(state))
    assert world.read(lambda queries: queries.babel_state()) == state


def test_lists_of_nodes_are_filtered_sorted_and_cut(world: World) -> None:
    for number, days in enumerate((10, 30, 20)):
        world.issue(email=f"{'bca'[number]}@100%_x", days=days)
    world.change(lambda changes: changes.mark_seen([LastCall(Prefix(1, 16), 100, 10, "1.0, Linux", "")]))
    world.change(lambda changes: changes.revoke(3, MOMENT))

    def cns(found: list[ListedNode]) -> list[str]:
        return [each.prefix.cn for each in found]

    def chosen(search: NodeSearch, state: str, sort: str, **options: Any) -> tuple[int, list[str]]:
        online = frozenset({Prefix(1, 16)})
        given: dict[str, Any] = {
            "descending": False,
            "offset": 0,
            "limit": 10,
            "online": online,
            "ends_before": int(MOMENT) + 15 * DAY,
        }
        total, found = world.browse(
            lambda lists: lists.select_nodes(NodeSelection(search, state, sort, **(given | options)))
        )
        return total, cns(found)

    assert cns(world.browse(lambda lists: lists.nodes(NodeFilter(), "", 2))) == ["0/16", "1/16"]
    assert cns(world.browse(lambda lists: lists.nodes(NodeFilter(email="a@100%_x"), "", 9))) == ["2/16"]
    assert cns(world.browse(lambda lists: lists.nodes(NodeFilter(unseen_since=200), Prefix(0, 16).bits, 9))) == [
        "1/16",
        "2/16",
    ]
    orders = {sort: chosen(NodeSearch(), "all", sort)[1] for sort in NODE_SORTS}
    assert orders["email"] == ["2/16", "0/16", "1/16"]
    assert orders["expires"] == ["0/16", "2/16", "1/16"]
    assert orders["seen"] == ["0/16", "2/16", "1/16"]
    assert orders["version"] == ["1/16", "0/16", "2/16"]
    states = {state: chosen(NodeSearch(), state, "address")[1] for state in NODE_STATES}
    assert states == {
        "all": ["0/16", "1/16", "2/16"],
        "online": ["1/16"],
        "offline": ["0/16", "2/16"],
        "expiring": ["0/16"],
        "revoked": ["2/16"],
        "older": ["1/16"],
    }
    assert chosen(NodeSearch(), "online", "address", online=None) == (0, [])
    assert chosen(NodeSearch(text="A@100%_"), "all", "address") == (1, ["2/16"])
    assert chosen(NodeSearch(text="linux"), "all", "address") == (1, ["1/16"])
    assert chosen(NodeSearch(serial=2), "all", "address") == (1, ["1/16"])
    assert chosen(NodeSearch(prefixes=(Prefix(2, 16),)), "all", "address") == (1, ["2/16"])
    assert chosen(NodeSearch(), "all", "address", descending=True, offset=1, limit=1) == (3, ["1/16"])
    assert [each.email for each in world.browse(lambda lists: lists.names(2))] == ["b@100%_x", "c@100%_x"]
    assert [each.prefix for each in world.browse(lambda lists: lists.names_of([Prefix(2, 16)]))] == [Prefix(2, 16)]
    found = world.browse(lambda lists: lists.node_by_serial(3))
    assert found is not None
    assert found.revoked
    assert world.read(lambda queries: queries.prefix_by_email("c@100%_x")) == Prefix(1, 16)


def test_numbers_for_the_operator_are_the_same(world: World) -> None:
    for days in (1, 10, 300):
        world.issue(days=days)
    world.change(lambda changes: changes.add_token("t", "a@b", 16, MOMENT))
    world.change(lambda changes: changes.mark_seen([LastCall(Prefix(1, 16), int(MOMENT), 10, "1.0, Linux", "")]))
    world.change(lambda changes: changes.revoke(3, MOMENT))
    now, soon = int(MOMENT) + 2 * DAY, int(MOMENT) + 30 * DAY
    counts = world.browse(lambda lists: lists.counts([Prefix(1, 16)], now, soon))
    assert (counts.nodes, counts.routed, counts.expiring, counts.expired) == (3, 1, 1, 1)
    assert (counts.never_seen, counts.tokens, counts.revoked) == (2, 1, 1)
    assert [(each.software, each.older, each.nodes) for each in counts.software] == [
        (None, False, 2),
        ("1.0, Linux", True, 1),
    ]
    figures = world.browse(lambda lists: lists.figures(now, soon, 0, GRACE, 10))
    assert figures.certificates == {"valid": 0, "expiring": 1, "grace": 1, "revoked": 1}
    assert figures.tokens == {"unused": 1, "expired": 0}
    assert figures.software == {("1.0, Linux", 10): 1}
    assert figures.seen == ((Prefix(1, 16), int(MOMENT)),)
    assert figures.earliest == int(MOMENT) + 10 * DAY
    assert asyncio.run(_await(world.store.size())) > 0


def test_a_query_that_fails_is_no_end_of_the_others(world: World) -> None:
    def fails(queries: Queries) -> None:
        queries.config("x")
        raise NotFound("nobody")

    for _ in range(2):
        with pytest.raises(NotFound):
            world.read(fails)
        with pytest.raises(NotFound):
            world.browse(fails)
    world.change(lambda changes: changes.set_config("x", 1))
    assert world.read(lambda queries: queries.config("x")) == 1


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(["issue", "evict", "renew"]), st.integers(0, 9), st.integers(3, 6)), max_size=20)
)
def test_prefixes_numbers_and_serials_are_never_shared(world: World, steps: list[tuple[str, int, int]]) -> None:
    def run(changes: Changes) -> tuple[list[Prefix], list[int]]:
        held: dict[Prefix, Issued] = {}
        serials: list[int] = []
        for what, which, length in steps:
            chosen = sorted(held)[which % len(held)] if held else None
            if what == "issue":
                issued = changes.issue(ROOT, length, None, fake)
            elif chosen is not None and what == "renew":
                number = numbers[chosen]
                issued = changes.renew(held[chosen], lambda s, c=chosen, n=number: fake(Slot(c, n, s)))  # type: ignore[misc]
            elif chosen is not None:
                changes.evict(chosen, MOMENT)
                del held[chosen], numbers[chosen]
                continue
            else:
                continue
            held[issued.prefix] = issued
            serials.append(issued.serial)
        assert len(set(numbers.values())) == len(numbers)
        leaves = [*changes.free_leaves(), *held]
        assert not any(a.contains(b) for a in leaves for b in leaves if a is not b)
        raise Undone(serials)

    numbers: dict[Prefix, int] = {}

    def fake(slot: Slot) -> x509.Certificate:
        numbers[slot.prefix] = slot.number
        return world.make()(slot)

    with pytest.raises(Undone) as raised:
        world.change(run)
    serials = raised.value.args[0]
    assert len(set(serials)) == len(serials)
    assert world.leaves() == {ROOT}


class Undone(Exception):
    """A test takes back what it did."""


def test_a_name_belongs_to_one_node_as_long_as_it_is_one(world: World) -> None:
    def name(number: int) -> str | None:
        found = world.browse(lambda lists: lists.node(Prefix(number, 16)))
        assert found is not None
        return found.name

    first, second = world.issue(), world.issue()
    world.change(lambda changes: changes.set_name(second.prefix, "web"))
    assert (name(0), name(1)) == (None, "web")
    assert world.read(lambda queries: queries.named("web")) == second.prefix
    assert world.read(lambda queries: (queries.name(first.prefix), queries.name(second.prefix))) == (None, "web")
    assert [each.name for each in world.browse(lambda lists: lists.names(9))] == [None, "web"]
    with pytest.raises(Conflict):
        world.change(lambda changes: changes.set_name(first.prefix, "web"))
    with pytest.raises(NotFound):
        world.change(lambda changes: changes.set_name(Prefix(9, 16), "www"))
    world.change(lambda changes: changes.set_name(second.prefix, "web"))
    world.renew(second)
    world.reopen()
    assert name(1) == "web", "renewed"
    world.change(lambda changes: changes.set_name(second.prefix, "www"))
    world.change(lambda changes: changes.set_name(first.prefix, "web"))
    assert (name(0), name(1)) == ("web", "www")
    world.change(lambda changes: changes.evict(second.prefix, MOMENT))
    assert world.issue().prefix == second.prefix
    assert name(1) is None, "another node has the prefix"
    assert world.read(lambda queries: queries.named("www")) is None
    world.change(lambda changes: changes.set_name(first.prefix, None))
    assert name(0) is None


def test_a_node_with_another_key_does_not_inherit_a_name(world: World) -> None:
    old = world.issue()
    later = world.make()
    for key, kept in ((world.key, "web"), (cert.new_key().public_key(), None)):
        world.change(lambda changes: changes.set_name(old.prefix, "web"))
        world.key = key
        again = later(Slot(old.prefix, 0, 500 if kept else 501))
        world.change(lambda changes, again=again: changes.restore(old.prefix, again))  # type: ignore[misc]
        assert world.read(lambda queries: queries.name(old.prefix)) == kept
