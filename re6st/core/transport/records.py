"""The records that a node writes about its OpenVPN processes, so that the next daemon can take them over
(noded/takeover.py).

There is one JSON object for each process, with what neither its command line nor its management connection tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Endpoint, format_addresses, parse_addresses

SIZE_LIMIT = 1 << 22
"""Bytes of one record: a server may have many clients."""


class RecordError(ValueError):
    """A text that is not one of our records."""


@dataclass(frozen=True, slots=True)
class ClientOfServer:
    """A client that a server admitted. `since` is in seconds since 1970."""

    peer: Prefix
    serial: int | None
    address: str | None
    since: float
    number: int | None = None
    """The node number in its certificate."""


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A running server: its clients by OpenVPN's number, and a digest of the settings with which it was started."""

    pid: int
    config_digest: str
    clients: Mapping[int, ClientOfServer]


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client tunnel that is up; `name` is the name of the process, of several that share one interface."""

    pid: int
    config_digest: str
    name: str
    peer: Prefix
    endpoint: Endpoint
    serial: int | None
    external_ip: str | None
    mtu: int
    since: float
    number: int | None = None
    """As for a client of a server."""
    mark: int = 0
    """What its packets are marked with."""


Record = ServerRecord | ClientRecord


def encode(record: Record) -> bytes:
    """The record as a text."""
    common: dict[str, object] = {"pid": record.pid, "made": record.config_digest}
    if isinstance(record, ServerRecord):
        clients = {
            str(ident): {
                "peer": c.peer.cn,
                "serial": c.serial,
                "address": c.address,
                "since": c.since,
                "number": c.number,
            }
            for ident, c in record.clients.items()
        }
        return json.dumps(common | {"clients": clients}).encode()
    return json.dumps(
        common
        | {
            "name": record.name,
            "peer": record.peer.cn,
            "endpoint": format_addresses([record.endpoint]),
            "serial": record.serial,
            "external_ip": record.external_ip,
            "mtu": record.mtu,
            "since": record.since,
            "number": record.number,
            "mark": record.mark,
        }
    ).encode()


def decode(data: bytes) -> Record:
    """The record in a text. Raises RecordError."""
    try:
        fields = json.loads(data)
        pid, config_digest = _integer(fields["pid"]), str(fields["made"])
        if "clients" in fields:
            return ServerRecord(
                pid, config_digest, {int(ident): _client(entry) for ident, entry in fields["clients"].items()}
            )
        (endpoint,) = parse_addresses(str(fields["endpoint"]), anywhere=True)
        return ClientRecord(
            pid,
            config_digest,
            str(fields["name"]),
            Prefix.from_cn(str(fields["peer"])),
            endpoint,
            _optional_integer(fields["serial"]),
            _optional_text(fields["external_ip"]),
            _integer(fields["mtu"]),
            float(fields["since"]),
            _optional_integer(fields.get("number")),  # older versions do not write it, nor the next one
            _integer(fields.get("mark", 0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise RecordError(f"not a record: {error!r}") from None


def _client(fields: Any) -> ClientOfServer:
    peer, since = Prefix.from_cn(str(fields["peer"])), float(fields["since"])
    serial, number = _optional_integer(fields["serial"]), _optional_integer(fields.get("number"))
    return ClientOfServer(peer, serial, _optional_text(fields["address"]), since, number)


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RecordError(f"{value!r} is not a number")
    return value


def _optional_integer(value: Any) -> int | None:
    return None if value is None else _integer(value)


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)
