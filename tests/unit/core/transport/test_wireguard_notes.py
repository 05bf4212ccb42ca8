"""Phases of a WireGuard link, and the note of it that the next daemon reads."""

from __future__ import annotations

from random import Random

import pytest

from re6st.core.transport import wireguard_links
from re6st.core.transport.records import RecordError
from re6st.core.transport.wireguard_state import NEXT, Entry, LinkPhase
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import Terms
from tests.unit.wireguard_world import A, B, World, linked


def test_phases_follow_each_other_as_the_table_says() -> None:
    own = World().fresh().own
    for before in NEXT:
        for after in LinkPhase:
            entry = Entry(B, 2, Role.CLIENT, "re6stnet1", own, phase=before)
            if after in NEXT[before]:
                entry.go(after, 0, 0)
                assert entry.phase is after
            else:
                with pytest.raises(RuntimeError):
                    entry.go(after, 0, 0)


def test_a_note_of_a_link_is_read_as_it_was_written_and_the_secret_is_nowhere_else() -> None:
    world = linked()
    for link in (world.held(A), world.held(B)):
        assert wireguard_links.decode(wireguard_links.encode(link)) == link
        assert repr(link.own.secret) not in repr(link)
        assert link.own.secret.hex() not in repr(link)


def test_a_note_that_was_damaged_is_refused() -> None:
    world, rng = linked(), Random(5)
    link = world.held(A)
    note = wireguard_links.encode(link)
    absurd = (
        note.replace(b'"port": 51820', b'"port": 53'),
        note.replace(b'"port": 51820', b'"port": "51820"'),
        note.replace(b"1420", b"70000"),
        note.replace(b"fe80::", b"2001:db8::"),
        note.replace(b"re6stnet1", b"eth0"),
        note.replace(b"client", b"king"),
        note.replace(link.own.secret.hex().encode(), b"00"),
        note.replace(str(link.number).encode(), b"-1"),
        note.replace(str(link.number).encode(), b"1e400"),
        b"[" * 100_000,
        b"null",
        b"",
    )
    for text in absurd:
        assert text != note
        with pytest.raises(RecordError) as error:
            wireguard_links.decode(text)
        assert link.own.secret.hex() not in str(error.value)
    for _ in range(300):
        changed = bytearray(note)
        changed[rng.randrange(len(note))] = rng.randrange(256)
        try:
            read = wireguard_links.decode(bytes(changed))
        except RecordError:
            continue
        assert isinstance(read.theirs, Terms)
