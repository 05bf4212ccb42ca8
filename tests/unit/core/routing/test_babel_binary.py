"""The binary control socket of the patched babeld (wire.md 9.6): packets, as the older software has them."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.routing.babel_binary import (
    COUNT_LIMIT,
    HEADER,
    Announced,
    BinaryError,
    BinaryNeighbour,
    BinaryRoute,
    Dump,
    PacketKind,
    SetMultiplier,
    decode_dump,
    decode_header,
    decode_multiplier,
    dump_of,
    encode_dump,
    encode_multiplier,
    encode_packet,
)
from re6st.core.routing.babel_lines import NextHop, Table

A, B = IPv6Address("fe80::1"), IPv6Address("fe80::2")
ONE, TWO = IPv6Network("2001:db8:42:1::/64"), IPv6Network("2001:db8:42:2::/64")

RECORDED = (
    "0001000000f8"
    "0002" "00000003" "72653673746e65742d74637000" "00000004" "72653673746e65743100"
    "0001" "fe800000000000005cb115fffedb852c" "00000004fffc0060006d029e0000ffffffff00010100"
    "0001" "20010db8004200020000000000000000" "400000"
    "0002"
    "20010db8004200000000000000000000" "40006d006d0000" "7cf35ed753fb28e4" "000000000000000000000004"
    "fe800000000000005cb115fffedb852c" "fe800000000000005cb115fffedb852c" "01"
    "20010db8004200010000000000000000" "4000cd00cd0060" "bce3dd9c2912a805" "000000000000000000000004"
    "fe800000000000005cb115fffedb852c" "fe800000000000005cb115fffedb852c" "01"
)  # fmt: skip
"""A whole answer, in hex, that a node of the older software understood."""

addresses = st.integers(0, 2**128 - 1).map(IPv6Address)
words, indices = st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=15)
networks = st.builds(lambda a, n: IPv6Network((int(a), n), strict=False), addresses, st.integers(0, 128))
dumps = st.builds(
    Dump,
    st.dictionaries(indices, names, max_size=4),
    st.lists(st.builds(BinaryNeighbour, addresses, indices, words, words, words, words, words, words), max_size=4).map(
        tuple
    ),
    st.lists(st.builds(Announced, networks, words), max_size=4).map(tuple),
    st.lists(
        st.builds(
            BinaryRoute, networks, words, words, indices, addresses, st.booleans(), st.binary(min_size=8, max_size=8)
        ),
        max_size=4,
    ).map(tuple),
)


def test_a_recorded_answer() -> None:
    packet, hop = bytes.fromhex(RECORDED), IPv6Address("fe80::5cb1:15ff:fedb:852c")
    network = IPv6Network("2001:db8:42::/64")
    routers = bytes.fromhex("7cf35ed753fb28e4"), bytes.fromhex("bce3dd9c2912a805")
    dump = Dump(
        {3: "re6stnet-tcp", 4: "re6stnet1"},
        (BinaryNeighbour(hop, 4, 0xFFFC, 96, 109, 670),),
        (Announced(TWO),),
        (BinaryRoute(network, 109, 0, 4, hop, router=routers[0]), BinaryRoute(ONE, 205, 96, 4, hop, router=routers[1])),
    )
    kind, length = decode_header(packet[: HEADER.size])
    assert (kind, length) == (PacketKind.DUMP, len(packet) - HEADER.size)
    assert decode_dump(packet[HEADER.size :]) == dump
    assert encode_packet(PacketKind.DUMP, encode_dump(dump)) == packet


@given(dumps)
def test_what_is_encoded_is_decoded(dump: Dump) -> None:
    assert decode_dump(encode_dump(dump)) == dump


@given(dumps, st.data())
def test_a_dump_that_is_cut_short_is_refused(dump: Dump, data: st.DataObject) -> None:
    content = encode_dump(dump)
    with pytest.raises(BinaryError):
        decode_dump(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(BinaryError):
        decode_dump(content + b"\0")


@given(st.binary(max_size=300))
def test_garbage_gives_only_the_error(content: bytes) -> None:
    for decode in (decode_dump, decode_multiplier):
        try:
            decode(content)
        except BinaryError:
            pass


def test_headers() -> None:
    assert decode_header(encode_packet(PacketKind.DUMP, bytes(7))[: HEADER.size]) == (PacketKind.DUMP, 7)
    for kind, length in ((0, 1), (3, 1), (1, 1 << 24), (1, 0xFFFFFFFF)):
        with pytest.raises(BinaryError):
            decode_header(HEADER.pack(kind, length))


def test_multipliers() -> None:
    request = SetMultiplier((A, 4), 4096)
    assert encode_multiplier(request).hex() == "fe800000000000000000000000000001000000041000"
    assert decode_multiplier(encode_multiplier(request)) == request


def test_more_routes_than_can_be_counted_are_left_out() -> None:
    routes = tuple(BinaryRoute(IPv6Network((n << 64, 64)), 96, 0, 1, A) for n in range(COUNT_LIMIT + 1))
    content = encode_dump(Dump({}, routes=routes))
    assert decode_dump(content).routes == routes[:COUNT_LIMIT]
    decode_header(encode_packet(PacketKind.DUMP, content)[: HEADER.size])


def test_a_network_with_bits_behind_its_length_is_refused() -> None:
    good = encode_dump(Dump({}, announced=(Announced(ONE),)))
    with pytest.raises(BinaryError):
        decode_dump(good.replace(bytes((64, 0, 0)), bytes((33, 0, 0))))
    with pytest.raises(BinaryError):
        decode_dump(good.replace(bytes((64, 0, 0)), bytes((129, 0, 0))))


LINES = """
add interface re6stnet1 up true ipv6 fe80::9
add interface gone up true ipv6 fe80::8
add neighbour 1 address fe80::1 if re6stnet1 reach ff00 ureach 0000 rxcost 96 txcost 97 rtt 0.512 rttcost 0 cost 97
add neighbour 2 address fe80::2 if gone reach ff00 ureach 0000 rxcost 96 txcost 96 cost 96
add route 3 prefix 2001:db8:42:1::/64 from ::/0 installed yes id 00:00:00:00:00:00:00:01 metric 97 refmetric 0 via fe80::1 if re6stnet1
add route 4 prefix 2001:db8:42:2::/64 from ::/0 installed no id 00:00:00:00:00:00:00:02 metric 190 refmetric 96 via fe80::1 if re6stnet1
add route 5 prefix 2001:db8:42:2::/64 from ::/0 installed yes id 00:00:00:00:00:00:00:02 metric 96 refmetric 0 via fe80::2 if gone
add route 6 prefix ::/0 from 2001:db8:42::/48 installed yes id 00:00:00:00:00:00:00:02 metric 96 refmetric 0 via fe80::1 if re6stnet1
add route 7 prefix 10.42.2.0/24 from 0.0.0.0/0 installed yes id 00:00:00:00:00:00:00:02 metric 96 refmetric 0 via fe80::1 if re6stnet1
"""  # noqa: E501  # babeld's own lines


def test_what_the_text_socket_told_is_told_in_binary() -> None:
    table = Table()
    for line in LINES.strip().splitlines():
        table.feed(line)
    dump = dump_of(table, {"re6stnet1": 4}.get, [ONE], {NextHop(A, "re6stnet1"): 0}.__getitem__)
    assert dump == Dump(
        {4: "re6stnet1"},
        (BinaryNeighbour(A, 4, 0xFF00, 96, 97, 512, multiplier=0),),
        (Announced(ONE),),
        (BinaryRoute(ONE, 97, 0, 4, A),),
    )


def test_only_reachable_installed_routes_are_usable() -> None:
    assert BinaryRoute(ONE, 96, 0, 1, A).usable
    assert not BinaryRoute(ONE, 0xFFFF, 0, 1, A).usable
    assert not BinaryRoute(ONE, 96, 0, 1, A, installed=False).usable
