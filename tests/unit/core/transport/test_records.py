"""What is noted of a running OpenVPN comes back as it was, and nothing else is taken for a note."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.transport.records import ClientOfServer, ClientRecord, Record, RecordError, ServerRecord, decode, encode
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

PEERS = st.builds(lambda length, value: Prefix(value % (1 << length), length), st.integers(1, 64), st.integers(0))
SERIALS = st.none() | st.integers(0, 1 << 159)
TIMES = st.floats(0, 1e11)
PIDS = st.integers(0, 1 << 22)
CLIENTS = st.builds(ClientOfServer, PEERS, SERIALS, st.none() | st.ip_addresses().map(str), TIMES, SERIALS)
RECORDS = st.builds(ServerRecord, PIDS, st.text(), st.dictionaries(st.integers(0, 1 << 40), CLIENTS)) | st.builds(
    ClientRecord,
    PIDS,
    st.text(),
    st.text(),
    PEERS,
    st.builds(Endpoint, st.ip_addresses().map(str), st.integers(1, 65535), st.sampled_from(TunnelProtocol)),
    SERIALS,
    st.none() | st.ip_addresses().map(str),
    st.integers(0, 9000),
    TIMES,
    SERIALS,
    st.integers(0, 0x70),
)


@given(RECORDS)
def test_there_and_back(record: Record) -> None:
    assert decode(encode(record)) == record


@given(st.binary())
def test_no_other_bytes_are_a_record(data: bytes) -> None:
    with pytest.raises(RecordError):
        decode(data)


@given(RECORDS, st.data())
def test_a_part_of_one_is_none(record: Record, data: st.DataObject) -> None:
    text = encode(record)
    with pytest.raises(RecordError):
        decode(text[: data.draw(st.integers(0, len(text) - 1))])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"pid": "1", "made": "", "clients": {}}',
        '{"pid": -1, "made": "", "clients": {}}',
        '{"pid": true, "made": "", "clients": {}}',
        '{"pid": 1, "made": "", "clients": []}',
        '{"pid": 1, "made": "", "clients": {"x": {}}}',
        '{"pid": 1, "made": "", "clients": {"1": {"peer": "9/1", "serial": 1, "address": null, "since": 0}}}',
        '{"pid": 1, "made": "", "name": "x", "peer": "1/16", "endpoint": ""}',
    ],
)
def test_what_makes_no_sense_is_none(text: str) -> None:
    with pytest.raises(RecordError):
        decode(text.encode())


def test_a_note_of_a_version_that_did_not_know_node_numbers_is_read() -> None:
    client = {"peer": Prefix(1, 16).cn, "serial": 5, "address": None, "since": 1.0}
    text = json.dumps({"pid": 1, "made": "x", "clients": {"3": client}})
    record = decode(text.encode())
    assert isinstance(record, ServerRecord)
    assert record.clients[3].number is None
