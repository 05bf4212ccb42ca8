"""Our nftables table stays what it shall be, whatever others do to it; played by an nft that keeps it in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from re6st.core.machine.packet_rules import Part, Rules
from re6st.core.routing.babel_lines import NextHop
from re6st.linux.nftables import NftError
from re6st.linux.process import MissingProgram
from re6st.noded import packet_filter
from re6st.noded.packet_filter import (
    FORGET_GATEWAY,
    READ_AFTER,
    READ_EVERY,
    TELL_EVERY,
    TRY_AGAIN,
    PacketFilter,
    Sender,
)

NETWORK, SUBNET = IPv6Network("2001:db8:42::/48"), IPv6Network("2001:db8:42:1::/64")
RULES = Rules(("re6stnet1", "re6stnet-tcp"), NETWORK, SUBNET, tcp_ports=(1194,), udp_ports=(1194,))
NEIGHBOUR = IPv6Address("fe80::1")


class Nft:
    """One that others use too. `refuses` says which commands fail."""

    def __init__(self) -> None:
        self.table: str | None = None
        self.elements: set[str] = set()
        self.number = 7
        self.refuses: Callable[[str], bool] = lambda _: False
        self.loads: list[str] = []
        self.packets: dict[str, int] = {}
        self.senders: dict[tuple[str, str], int] = {}
        self.link_senders: dict[str, int] = {}
        self.readings = 0
        self.open = True

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        if not only_check:
            self.loads.append(commands)
        if self.refuses(commands):
            raise NftError("Operation not supported")
        table, elements = self.table, set(self.elements)
        if "delete table" in commands:
            table, elements = None, set()
        if "table inet re6stnet {" in commands:
            table, self.packets = commands.partition("add element")[0], {}
        for verb, element in re.findall(r"^(add|delete) element inet re6stnet (.*)$", commands, re.MULTILINE):
            if table is None or (verb == "delete" and element not in elements):
                raise NftError("No such file or directory")
            (elements.add if verb == "add" else elements.discard)(element)
        if not only_check:
            self.table, self.elements, self.number = table, elements, self.number + 1

    async def listing(self, *words: str, contents: bool = True) -> Any:
        self.readings += 1
        if self.table is None:
            raise NftError("No such file or directory")
        if words[-1] == "link_senders":
            elements = [{"elem": {"val": name, "counter": {"packets": n}}} for name, n in self.link_senders.items()]
            return {"nftables": [{"set": {"name": "link_senders", "elem": elements}}]}
        if words[-1] == "senders":
            found = [
                {"elem": {"val": {"concat": list(key)}, "counter": {"packets": count, "bytes": 0}}}
                for key, count in self.senders.items()
            ]
            return {"nftables": [{"set": {"name": "senders", "elem": found}}]}
        if words[0] == "table":
            return {"nftables": [{"rules": self.table}, {"counter": {"packets": sum(self.packets.values())}}]}
        return {"elem": sorted(each for each in self.elements if each.startswith(words[-1]))}

    def generation(self) -> int | None:
        return self.number

    def counters(self, table: str) -> Mapping[str, int]:
        return self.packets

    def close(self) -> None:
        self.open = False

    def flush(self) -> None:
        """`nft flush ruleset` by somebody else."""
        self.table, self.number = None, self.number + 1
        self.elements.clear()


@pytest.fixture
def nft() -> Nft:
    return Nft()


class Clock:
    """One that is moved by hand."""

    now = 1000.0


CLOCK = Clock()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(packet_filter, "connections_tracked", lambda: False)
    return CLOCK


Play = Callable[[PacketFilter], Any]


def play(nft: Nft, steps: Play, **heard: Any) -> PacketFilter:
    made = PacketFilter(lambda: nft, clock=lambda: CLOCK.now, **heard)

    async def run() -> None:
        await made.follow(RULES)
        await steps(made)

    asyncio.run(run())
    return made


def test_without_nftables_everything_goes_on_and_it_is_said_once_what_is_missing_and_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def missing() -> Any:
        raise MissingProgram("nft")

    async def run() -> None:
        made = PacketFilter(missing)
        assert not made.available
        await made.follow(RULES)
        await made.mute("re6stnet1")
        await made.unmute("re6stnet1")
        await made.look()
        assert (made.active, dict(made.dropped)) == (False, {})
        await made.close()

    asyncio.run(run())
    (record,) = caplog.records
    assert "Install nftables (Debian: apt install nftables)" in record.getMessage()


def test_an_interface_or_a_neighbour_is_muted_and_heard_again(nft: Nft, clock: Clock) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")
        await made.mute("re6stnet-tcp", NEIGHBOUR)
        assert nft.elements == {'muted { "re6stnet1" }', 'unheard { "re6stnet-tcp" . fe80::1 }'}
        await made.unmute("re6stnet1")
        await made.unmute("re6stnet9")
        assert nft.elements == {'unheard { "re6stnet-tcp" . fe80::1 }'}
        assert len(nft.loads) == 4, "what changes nothing calls nobody"
        await made.close()
        await made.close()
        assert nft.table is None
        assert not nft.open

    play(nft, steps)


def test_a_table_that_others_flushed_is_there_again_within_a_second_with_what_was_muted(
    nft: Nft, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")
        before = nft.table
        for _ in range(2):
            nft.flush()
            clock.now += 10
            await made.look()
            assert (nft.table, nft.elements) == (before, {'muted { "re6stnet1" }'})
        assert made.available

    play(nft, steps)
    assert "changed or removed by another program" in caplog.text


def test_it_looks_again_when_something_is_due_and_not_each_second(nft: Nft, clock: Clock) -> None:
    """Of changes it hears: what follows another one too soon has to wait, and what failed is tried again."""

    async def steps(made: PacketFilter) -> None:
        assert made.pause() == READ_AFTER, "what it has loaded is read once that is in nobody's way"
        clock.now += READ_AFTER
        await made.look()
        assert made.pause() == TELL_EVERY
        nft.flush()
        await made.look()
        clock.now += READ_AFTER
        await made.look()
        nft.flush()
        await made.look()
        assert made.pause() == READ_EVERY - READ_AFTER
        clock.now += made.pause()
        await made.look()
        assert nft.table is not None
        nft.refuses = lambda commands: True
        await made.mute("re6stnet1")
        assert made.pause() == TRY_AGAIN

    play(nft, steps)


def test_a_drain_just_after_a_flush_still_mutes(nft: Nft, clock: Clock) -> None:
    async def steps(made: PacketFilter) -> None:
        nft.flush()
        await made.mute("re6stnet1")
        assert nft.table is not None
        assert nft.elements == {'muted { "re6stnet1" }'}

    play(nft, steps)


def test_changes_of_others_to_our_table_are_undone_and_changes_elsewhere_leave_it_alone(nft: Nft, clock: Clock) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")
        await made.look()
        assert nft.readings == 0, "nobody waits for that"
        clock.now += READ_AFTER
        await made.look()
        loads, readings = len(nft.loads), nft.readings
        await made.look()
        assert nft.readings == readings, "nothing changed: nothing is read"
        nft.number += 5  # somebody else's table
        nft.packets = {"own_source": 9}
        await made.look()
        assert nft.readings > readings
        assert len(nft.loads) == loads
        readings = nft.readings
        for _ in range(4):
            nft.number += 1
            clock.now += 1
            await made.look()
        assert nft.readings == readings, "where others change theirs all the time, ours is read every few seconds"
        nft.elements.clear()
        clock.now += 10
        await made.look()
        clock.now += READ_AFTER
        await made.look()
        assert nft.elements == {'muted { "re6stnet1" }'}
        nft.table, nft.number = "chain input { }", nft.number + 1
        clock.now += 10
        await made.look()
        assert nft.table is not None
        assert "set muted" in nft.table

    play(nft, steps)


def test_what_others_change_before_ours_was_read_does_not_count_as_ours(nft: Nft, clock: Clock) -> None:
    async def steps(made: PacketFilter) -> None:
        right = nft.table
        for read in (False, True):
            await made.mute(f"re6stnet{read + 1}")
            nft.table, nft.number = "chain input { }", nft.number + 1
            clock.now += READ_EVERY
            await made.look()
            assert nft.table == right
            loads = len(nft.loads)
            for _ in range(3):
                clock.now += READ_EVERY
                await made.look()
            assert len(nft.loads) == loads, "once is enough"

    play(nft, steps)


def test_one_that_cannot_be_read_is_not_said_to_have_been_changed(
    nft: Nft, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(made: PacketFilter) -> None:
        loads = len(nft.loads)
        table, nft.table = nft.table, None  # as far as reading goes
        for _ in range(5):
            clock.now += READ_AFTER
            await made.look()
        assert nft.readings < 3
        assert len(nft.loads) == loads
        nft.table = table

    play(nft, steps)
    assert "changed or removed" not in caplog.text


def test_what_could_not_be_unmuted_is_tried_again_until_it_is(
    nft: Nft, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")
        nft.refuses = lambda _: True
        await made.unmute("re6stnet1")
        await made.look()
        assert nft.elements
        clock.now += 100
        await made.look()
        nft.refuses = lambda _: False
        clock.now += 100
        await made.look()
        assert nft.elements == set(), "no later tunnel on it is deaf"

    play(nft, steps)
    assert len([record for record in caplog.records if "Operation not supported" in record.getMessage()]) == 1


def test_one_that_was_cut_short_in_the_middle_is_finished(nft: Nft, clock: Clock) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")

        def cut_short(commands: str) -> bool:
            raise asyncio.CancelledError

        nft.refuses = cut_short
        with pytest.raises(asyncio.CancelledError):
            await made.unmute("re6stnet1")
        nft.refuses = lambda _: False
        await made.look()
        assert nft.elements == set()

    play(nft, steps)


def test_the_policy_hears_that_nothing_can_be_drained_and_when_it_can_again(nft: Nft, clock: Clock) -> None:
    heard: list[bool] = []

    async def steps(made: PacketFilter) -> None:
        assert heard == [False]
        await made.look()
        assert made.available is False
        nft.refuses = lambda _: False
        clock.now += 100
        await made.look()
        assert heard == [False, True]

    nft.refuses = lambda _: True
    play(nft, steps, changed=lambda: heard.append(not heard[-1] if heard else False))


@pytest.mark.parametrize(
    ("word", "missing"),
    [
        ("fib ", {Part.OWN_ADDRESSES}),
        ("limit rate", {Part.LIMITS}),
        ("maxseg", {Part.SEGMENTS}),
        ("goto from_tunnel", {Part.SOURCES}),
        ("counter", {Part.SOURCES, Part.LIMITS}),
    ],
)
def test_what_a_kernel_lacks_is_left_out_and_said(
    nft: Nft, clock: Clock, caplog: pytest.LogCaptureFixture, word: str, missing: set[Part]
) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")
        assert missing <= made.missing
        assert made.active == (Part.SOURCES not in missing)
        assert nft.elements == {'muted { "re6stnet1" }'}
        assert made.available

    nft.refuses = lambda commands: word in commands
    play(nft, steps)
    assert all(part.value in caplog.text for part in missing)


@pytest.mark.parametrize(
    ("counted", "word", "counts"), [(True, "-", True), (False, "-", False), (True, "heard", False)]
)
def test_who_reads_counts_is_told_whether_there_are_any(
    nft: Nft, clock: Clock, counted: bool, word: str, counts: bool
) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.follow(replace(RULES, shared=("re6stnet-tcp",), counted=counted))
        assert made.counts == counts

    nft.refuses = lambda commands: f"set {word} " in commands
    assert not PacketFilter(lambda: nft).counts
    play(nft, steps)


def test_new_rules_take_the_place_of_the_old_at_once_and_keep_what_was_counted(nft: Nft, clock: Clock) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")
        nft.packets = {"own_source": 3}
        await made.follow(replace(RULES, tunnels=("re6stnet-tcp",), gateway=True))
        assert nft.table is not None
        assert '"re6stnet1"' in nft.table, "a tunnel of before may still run"
        assert nft.elements == {'muted { "re6stnet1" }'}
        nft.packets = {"own_source": 2, "not_forwarded": 1}
        assert made.dropped["own_source"] == 5
        assert made.dropped["not_forwarded"] == 1

    play(nft, steps)


def test_packets_from_outside_come_in_while_the_network_has_a_gateway_and_a_while_longer(
    nft: Nft, clock: Clock
) -> None:
    rule = f"ip6 saddr != {{ ::, ff00::/8 }} ip6 daddr {NETWORK} accept"

    async def steps(made: PacketFilter) -> None:
        assert rule not in str(nft.table)
        await made.lead_outside(frozenset({NextHop(NEIGHBOUR, "re6stnet1")}))
        assert rule in str(nft.table)
        loads = len(nft.loads)
        await made.lead_outside(frozenset())
        clock.now += FORGET_GATEWAY - 1
        await made.look()
        assert (rule in str(nft.table), len(nft.loads)) == (True, loads)
        clock.now += 2
        await made.look()
        assert rule not in str(nft.table)

    play(nft, steps)


def test_connections_are_looked_at_only_where_somebody_else_tracks_them(
    monkeypatch: pytest.MonkeyPatch, nft: Nft, clock: Clock
) -> None:
    async def steps(made: PacketFilter) -> None:
        assert "ct state" not in str(nft.table)
        monkeypatch.setattr(packet_filter, "connections_tracked", lambda: True)
        await made.look()
        assert "ct state established,related accept" in str(nft.table)

    play(nft, steps)


def test_who_sends_what_is_dropped_is_told_with_what_came_since_the_last_time(nft: Nft, clock: Clock) -> None:
    told: list[list[Sender]] = []

    async def steps(made: PacketFilter) -> None:
        nft.packets, nft.senders = {"foreign_source": 7}, {("re6stnet1", "02:00:00:00:00:01"): 7}
        await made.look()
        nft.packets, nft.senders = {"foreign_source": 9}, {("re6stnet1", "02:00:00:00:00:01"): 9}
        for _ in range(3):
            clock.now += 20
            await made.look()

    play(nft, steps, told=told.append)
    assert told == [[Sender("re6stnet1", "02:00:00:00:00:01", count)] for count in (7, 2)]


def test_what_came_by_a_link_of_wireguard_is_told_without_a_hardware_address(nft: Nft, clock: Clock) -> None:
    told: list[list[Sender]] = []

    async def steps(made: PacketFilter) -> None:
        nft.packets, nft.link_senders = {"own_source": 3}, {"re6stnet-wg1": 3}
        await made.look()

    play(nft, steps, told=told.append)
    assert told == [[Sender("re6stnet-wg1", "", 3)]]


def test_who_sent_what_was_dropped_just_before_a_restart_is_told_too(nft: Nft, clock: Clock) -> None:
    told: list[list[Sender]] = []

    async def steps(made: PacketFilter) -> None:
        nft.packets, nft.senders = {"foreign_source": 7}, {("re6stnet1", "02:00:00:00:00:01"): 7}
        await made.hand_over()

    play(nft, steps, told=told.append)
    assert told == [[Sender("re6stnet1", "02:00:00:00:00:01", 7)]]


def test_the_next_daemon_finds_the_table_with_nothing_muted(nft: Nft, clock: Clock) -> None:
    async def steps(made: PacketFilter) -> None:
        await made.mute("re6stnet1")
        await made.hand_over()
        assert nft.elements == set()
        assert nft.table is not None, "no packet passes unfiltered meanwhile"
        await made.mute("re6stnet1")
        await made.close()
        assert nft.table is not None

    play(nft, steps)
