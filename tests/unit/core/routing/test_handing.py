"""Packets are handed to another neighbour of their destination, as it wishes, and never in a circle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Address
from random import Random

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.handing import RELIED_ON, WISHES_LIMIT, Handed, Handing, NeighbourLinks
from re6st.core.routing.line_wishes import LASTS, REPEAT, Able, Message, Ready, Wish

US, HOME, PEER, THIRD, STRANGER = (Prefix(number, 16) for number in range(1, 6))


def link(number: int, cost: int = 96, *, lives: bool = True) -> NeighbourLinks:
    name = f"re6stnet{number}"
    return NeighbourLinks(NextHop(IPv6Address(f"fe80::{number:x}"), name) if lives else None, cost, frozenset({name}))


LINKS = {HOME: link(1), PEER: link(2), THIRD: link(3)}
WISH = Wish({1: (US,), 2: (PEER, THIRD)}, {5: 1, 6: 2})


def live(handing: Handing, now: float, links: dict[Prefix, NeighbourLinks] | None = None) -> Handed:
    found = handing.look(LINKS if links is None else links, now)
    handing.say(now)
    return found


def wished(*ready: Prefix, wish: Wish = WISH) -> Handing:
    handing = Handing(US)
    handing.wished(HOME, wish, LINKS, 0.0)
    for each in ready:
        handing.ready(each, Ready(HOME, True), 0.0)
    return handing


def test_what_is_wished_by_another_line_is_handed_to_a_neighbour_there_that_is_ready() -> None:
    handed = live(wished(PEER), 0.0)
    assert handed.ways == {1: {HOME: LINKS[HOME].best}, 2: {HOME: LINKS[PEER].best}}
    assert handed.buckets == {HOME: {5: 1, 6: 2}}


def test_nothing_is_handed_to_who_is_not_ready() -> None:
    handed = live(wished(), 0.0)
    assert handed.ways == {1: {HOME: LINKS[HOME].best}}
    assert handed.buckets == {HOME: {5: 1}}
    handing = wished(PEER)
    handing.ready(PEER, Ready(HOME, False), 0.0)
    assert 2 not in live(handing, 0.0).ways
    assert 2 in live(wished(PEER), RELIED_ON - 0.1).ways
    assert 2 not in live(wished(PEER), RELIED_ON).ways


def test_what_is_handed_to_us_goes_over_our_own_link_or_nowhere() -> None:
    handing = wished()
    assert live(handing, 0.0).home == {HOME: LINKS[HOME].best}
    assert live(handing, 0.1).handing == {HOME: frozenset({"re6stnet2", "re6stnet3"})}
    dead = LINKS | {HOME: link(1, lives=False)}
    handed = live(handing, 0.2, dead)
    assert handed.home == {}
    assert handed.handing == {HOME: frozenset({"re6stnet2", "re6stnet3"})}, "they may not know it yet"


def test_neighbours_are_told_at_once_whether_we_are_ready_and_again_each_second() -> None:
    handing = wished()
    handing.look(LINKS, 0.0)
    assert handing.say(0.0) == [(PEER, Ready(HOME, True)), (THIRD, Ready(HOME, True)), (HOME, Able(frozenset({1})))]
    assert handing.say(REPEAT / 2) == []
    assert len(handing.say(REPEAT)) == 3
    handing.look(LINKS | {HOME: link(1, lives=False)}, REPEAT + 0.1)
    said = handing.say(REPEAT + 0.1)
    assert said == [(PEER, Ready(HOME, False)), (THIRD, Ready(HOME, False)), (HOME, Able(frozenset()))]


def test_of_those_that_are_ready_the_nearest_is_taken_and_stays() -> None:
    handing, links = wished(PEER, THIRD), LINKS | {THIRD: link(3, 90)}
    assert live(handing, 0.0, links).ways[2] == {HOME: links[THIRD].best}
    assert live(handing, 0.1).ways[2] == {HOME: LINKS[THIRD].best}, "it stays, as long as it is there"
    assert live(handing, 0.2, LINKS | {THIRD: link(3, lives=False)}).ways[2] == {HOME: LINKS[PEER].best}


def test_a_wish_ends_by_itself_and_with_it_all_that_follows() -> None:
    handing = wished(PEER)
    live(handing, 0.0)
    assert live(handing, LASTS - 0.1).ways
    assert live(handing, LASTS).ways == {}
    assert live(handing, 2 * LASTS) == Handed()
    assert not handing.is_active


def test_who_wishes_nothing_any_more_gets_all_as_babel_says() -> None:
    handing = wished(PEER)
    handing.wished(HOME, Wish(), LINKS, 1.0)
    assert live(handing, 1.0).ways == {}


def test_a_wish_that_does_not_name_us_is_none_for_us() -> None:
    handed = live(wished(PEER, wish=Wish({1: (STRANGER,), 2: (PEER,)}, {1: 2})), 0.0)
    assert handed == Handed()


def test_only_the_packets_of_who_wishes_move_and_only_to_neighbours_it_names_that_are_ready_themselves() -> None:
    """A wish has no destination in it; a word of somebody who is not named, or sends by the same line, does nothing."""
    handing = wished()
    for liar, destination in ((STRANGER, HOME), (HOME, HOME), (PEER, THIRD), (PEER, US)):
        handing.ready(liar, Ready(destination, True), 0.0)
    assert live(handing, 0.0).ways == {1: {HOME: LINKS[HOME].best}}
    handing = wished(wish=Wish({1: (US, PEER), 2: (THIRD,)}, {3: 2}))
    handing.ready(PEER, Ready(HOME, True), 0.0)
    assert 2 not in live(handing, 0.0).ways


def test_who_has_no_link_with_us_is_not_heard() -> None:
    dead = LINKS | {STRANGER: link(9, lives=False)}
    for links in (LINKS, dead):
        handing = Handing(US)
        assert not handing.wished(STRANGER, WISH, links, 0.0)
        assert not handing.ready(PEER, Ready(STRANGER, True), 0.0)
        assert not handing.is_active
        assert live(handing, 0.0, links) == Handed()
        assert handing.say(REPEAT) == []


def test_when_the_link_with_us_dies_what_goes_by_other_lines_stays_there_until_the_wish_is_over() -> None:
    handing, dead = wished(PEER), LINKS | {HOME: link(1, lives=False)}
    live(handing, 0.0)
    assert not handing.wished(HOME, WISH, dead, 1.0)
    assert live(handing, 1.0, dead).ways == {2: {HOME: LINKS[PEER].best}}
    live(handing, LASTS, dead)
    assert not handing.is_active


def test_of_who_has_no_link_with_us_any_more_nothing_is_kept_but_promises() -> None:
    handing = wished(PEER)
    live(handing, 0.0)
    handed = live(handing, 0.1, {PEER: link(2), THIRD: link(3)})
    assert (handed.ways, handed.buckets) == ({}, {})
    assert handed.handing
    assert live(handing, 0.2).ways == {}, "it has to wish again"
    live(handing, LASTS)
    assert not handing.is_active


def test_whoever_changes_its_wish_all_the_time_has_no_neighbour_told_more_than_once_a_second() -> None:
    peers = [Prefix(100 + number, 16) for number in range(63)]
    links = {HOME: link(1)} | {each: link(100 + number) for number, each in enumerate(peers)}
    handing, told = Handing(US), Counter[Prefix]()
    for number in range(100):
        handing.wished(HOME, Wish({1: (US,), 2: tuple(peers)} if number % 2 else {1: (US, *peers)}), links, number / 10)
        handing.look(links, number / 10)
        told.update(to for to, word in handing.say(number / 10) if isinstance(word, Ready))
    assert set(told) == set(peers)
    assert max(told.values()) <= 10


def test_a_link_that_comes_and_goes_is_told_of_twice_a_second_at_most() -> None:
    handing, told = Handing(US), 0
    for number in range(100):
        handing.wished(HOME, WISH, LINKS, number / 10)
        handing.look(LINKS | {HOME: link(1, lives=number % 2 == 0)}, number / 10)
        told += sum(to == PEER for to, _ in handing.say(number / 10))
    assert told <= 20


def test_a_promise_that_nobody_wants_any_more_runs_out_and_is_not_broken() -> None:
    handing = wished()
    live(handing, 0.0)
    handing.wished(HOME, Wish({1: (US, PEER, THIRD)}), LINKS, 0.1)
    for number in range(1, 49):
        handed = handing.look(LINKS, number / 10)
        assert handed.handing == {HOME: frozenset({"re6stnet2", "re6stnet3"})}
        assert not [word for _, word in handing.say(number / 10) if isinstance(word, Ready)]
    assert handing.look(LINKS, LASTS).handing == {}


def test_wishes_are_bounded() -> None:
    handing = Handing(US)
    links = {Prefix(100 + number, 16): link(number) for number in range(WISHES_LIMIT + 10)}
    for each in links:
        handing.wished(each, WISH, links, 0.0)
    handing.look(links, 0.0)
    assert len(handing.say(0.0)) == WISHES_LIMIT


def test_what_the_kernel_lacks_is_not_promised() -> None:
    handing = wished(PEER)
    found = handing.look(LINKS, 0.0)
    lacks = Handed(ways={2: found.ways[2]}, home=found.home)
    refusing = [(PEER, Ready(HOME, False)), (THIRD, Ready(HOME, False))]
    assert handing.say(0.0, lacks) == [*refusing, (HOME, Able(frozenset({1})))]
    assert handing.say(REPEAT) == [
        (PEER, Ready(HOME, True)),
        (THIRD, Ready(HOME, True)),
        (HOME, Able(frozenset({1, 2}))),
    ]


def test_at_the_end_those_are_told_that_rely_on_us() -> None:
    handing = wished()
    handing.look(LINKS, 0.0)
    assert handing.end() == [], "nobody was told anything"
    handing = wished()
    live(handing, 0.0)
    assert handing.end() == [(PEER, Ready(HOME, False)), (THIRD, Ready(HOME, False))]
    assert not handing.is_active


# --- no circle ---


class Walk:
    """Nodes of which some are neighbours of node 0, which wishes what it likes; messages are late, or lost."""

    LATE = 1.5

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.nodes = [Prefix(number, 16) for number in range(9)]
        self.home = self.nodes[0]
        self.pairs = {frozenset((a, b)) for a in self.nodes for b in self.nodes if a < b and self.chance.random() < 0.7}
        self.alive = set(self.pairs)
        self.handings = {node: Handing(node) for node in self.nodes[1:]}
        self.kernels = {node: Handed() for node in self.nodes[1:]}
        self.waiting: list[tuple[float, Prefix, Prefix, Message]] = []
        self.now = 0.0
        self.handed = 0

    def name(self, of: Prefix) -> str:
        return f"re6stnet{of.value}"

    def links(self, node: Prefix) -> dict[Prefix, NeighbourLinks]:
        found = {}
        for other in self.nodes:
            pair = frozenset((node, other))
            if pair in self.pairs:
                hop = NextHop(IPv6Address(int(IPv6Address("fe80::")) + other.value), self.name(other))
                lives = pair in self.alive
                found[other] = NeighbourLinks(hop if lives else None, 96, frozenset({self.name(other)}))
        return found

    def wish(self) -> Wish:
        """Anything, also what is not so."""
        lines: dict[int, tuple[Prefix, ...]] = {}
        for node in self.nodes[1:]:
            if self.chance.random() < 0.8:
                slot = self.chance.choice((1, 2, 3))
                lines[slot] = (*lines.get(slot, ()), node)
        wished = [bucket for bucket in range(8) if lines and self.chance.random() < 0.7]
        return Wish(lines, {bucket: self.chance.choice(list(lines)) for bucket in wished})

    def step(self) -> None:
        self.now += 0.25
        for pair in self.pairs:
            if self.chance.random() < (0.03 if pair in self.alive else 0.15):
                self.alive ^= {pair}
        if self.chance.random() < 0.5:
            wish = self.wish()
            for node in self.nodes[1:]:
                self.send(self.home, node, wish)
        for message in [each for each in self.waiting if each[0] <= self.now]:
            self.waiting.remove(message)
            _, by, to, what = message
            if isinstance(what, Wish):
                self.handings[to].wished(by, what, self.links(to), self.now)
            elif isinstance(what, Ready) and to != self.home:
                self.handings[to].ready(by, what, self.now)
        for node, handing in self.handings.items():
            if self.chance.random() < 0.7:
                self.kernels[node] = handing.look(self.links(node), self.now)
                for to, what in handing.say(self.now):
                    self.send(node, to, what)

    def send(self, by: Prefix, to: Prefix, what: Message) -> None:
        if self.chance.random() < 0.7:
            self.waiting.append((self.now + self.chance.uniform(0, self.LATE), by, to, what))

    def packet(self) -> Iterator[tuple[Prefix, bool]]:
        """The nodes that a packet is at, and whether it was handed there. Where nobody is asked, babel may lead to any
        neighbour: its own ways are not what is tested.
        """
        here, came_by, bucket = self.chance.choice(self.nodes[1:]), None, self.chance.randrange(8)
        for _ in range(40):
            kernel = self.kernels[here]
            neighbours = {self.name(other): other for other in self.links(here)}
            if came_by is not None and self.name(came_by) in kernel.handing.get(self.home, ()):
                if (hop := kernel.home.get(self.home)) is None:
                    return
                to, handed = neighbours[hop.interface], False
            elif (slot := kernel.buckets.get(self.home, {}).get(bucket)) is not None:
                to = neighbours[kernel.ways[slot][self.home].interface]
                handed = to != self.home
            else:
                to, handed = self.chance.choice(list(neighbours.values())), False
            yield to, handed
            if to == self.home:
                return
            here, came_by = to, here


@pytest.mark.parametrize("seed", range(60))
def test_who_was_handed_a_packet_sends_it_home_or_nowhere_whatever_is_wished_late_or_lost(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(120):
        walk.step()
        for _ in range(20):
            was_handed = False
            for node, handed in walk.packet():
                if was_handed:
                    assert node == walk.home
                was_handed = handed
                walk.handed += handed
    assert walk.handed > 0
