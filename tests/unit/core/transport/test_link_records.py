"""The note of a WireGuard link is read by the next daemon as it was written, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.transport import link_records
from re6st.core.transport.link_records import LinkRecord, PeerIdentity
from re6st.core.transport.records import RecordError
from re6st.core.transport.wireguard_links import OwnEnd, WireGuardLink
from re6st.core.tunnel_protocols import Role, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.wireguard import Terms

OWN = OwnEnd(bytes(31) + b"\7", Terms(b"k" * 32, 21194, 1420, IPv6Address("fe80::1")))
THEIRS = Terms(b"t" * 32, 21195, 1420, IPv6Address("fe80::2"))
LINK = WireGuardLink(Prefix(4, 16), 77, Role.SERVER, "re6stnet-wgs3", OWN, THEIRS)
PLACE = Endpoint("192.0.2.7", 1194, TunnelProtocol.TCP)
RECORD = LinkRecord(LINK, (4711, "r601234567"), PeerIdentity(12, 3, 2e9), PLACE, 1e9, 1.5e9)
times = st.floats(0, 4e9)
records = st.builds(
    LinkRecord,
    st.just(LINK),
    st.none() | st.tuples(st.integers(1, 1 << 22), st.just("r601234567")),
    st.builds(
        PeerIdentity, st.none() | st.integers(0, 1 << 64), st.none() | st.integers(0, 1 << 32), st.none() | times
    ),
    st.none() | st.just(PLACE),
    times,
    st.none() | times,
    st.integers(0, 0x70),
    st.integers(0, 3),
)


@given(records)
def test_it_is_read_as_it_was_written(record: LinkRecord) -> None:
    found = link_records.decode(link_records.encode(record))
    assert found == record
    assert (found.peer, found.protocol) == (LINK.peer, None if record.place is None else TunnelProtocol.TCP)


def test_a_note_of_the_first_version_with_links_is_read() -> None:
    fields = json.loads(link_records.encode(RECORD))
    del fields["keyed"], fields["until"], fields["mark"]
    expected = replace(RECORD, keyed=None, identity=PeerIdentity(12, 3))
    assert link_records.decode(json.dumps(fields).encode()) == expected


def test_an_older_version_reads_no_note_of_a_further_link() -> None:
    """It would take the link for the only one with the peer."""
    assert "link" in json.loads(link_records.encode(RECORD))
    assert "link" not in json.loads(link_records.encode(replace(RECORD, lane=1)))


@pytest.mark.parametrize(
    "changed",
    [
        {"link": "{}"},
        {"process": [1]},
        {"process": [-1, "x"]},
        {"serial": True},
        {"since": "x"},
        {"number": -1},
        *({name: value} for name in ("keyed", "until") for value in ("1", float("nan"))),
    ],
)
def test_what_is_no_note_is_refused_without_a_word_of_what_it_holds(changed: dict[str, object]) -> None:
    text = json.loads(link_records.encode(RECORD)) | changed
    with pytest.raises(RecordError) as refused:
        link_records.decode(json.dumps(text).encode())
    assert OWN.secret.hex() not in str(refused.value)
    for data in (b"", b"[]", b"{", b"\xff", link_records.encode(RECORD)[:-9]):
        with pytest.raises(RecordError):
            link_records.decode(data)
