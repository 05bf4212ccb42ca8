"""The program nft, and what the kernel tells about nftables without it (linux/netfilter/nf_tables.h)."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from re6st.linux.netlink import NetlinkError, NetlinkSocket, pack_attribute, read_attributes
from re6st.linux.process import find_program, output_of

NFT = "nft"
NFT_TIME = 20.0
"""Seconds that nft may take. On a busy machine it needs a tenth of one."""
TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_count")

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER, _NFPROTO_INET, _NFT = 12, 1, 10 << 8
_GETGEN, _GETOBJ = _NFT | 16, _NFT | 19
_GEN_ID, _OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA, _COUNTER = 1, 1, 2, 3, 4, 1
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_HEAD = struct.Struct("!BBH")  # family, version, resource


class NftError(Exception):
    """nft refused; the text is its first line."""


class Ruleset(Protocol):
    """The rules of this network namespace, ours and others', as Nft reads and changes them."""

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        """Carry out all of these commands or none. Raises NftError."""

    async def listing(self, *words: str, contents: bool = True) -> Any:
        """The output of `nft list` as JSON; small without the `contents` of sets. Raises NftError."""

    def generation(self) -> int | None:
        """A number that grows with each change, whoever makes it; None if the kernel does not tell it."""

    def counters(self, table: str) -> Mapping[str, int]:
        """Numbers of packets, by the name of the counter; empty if the table does not exist."""

    def close(self) -> None: ...


class Nft:
    """The Ruleset, by nft and netlink. Raises MissingProgram when it is made and there is no nft."""

    def __init__(self) -> None:
        self._program = find_program(NFT)
        self._socket: NetlinkSocket | None = None

    async def load(self, commands: str, *, only_check: bool = False) -> None:
        """Carry out all of these commands or none. Raises NftError."""
        await self._run(*(("-c",) if only_check else ()), "-f", "-", text=commands)

    async def listing(self, *words: str, contents: bool = True) -> Any:
        """The output of `nft list` as JSON; small without the `contents` of sets. Raises NftError."""
        return read_listing(await self._run("-j", *(() if contents else ("-t",)), "list", *words))

    def generation(self) -> int | None:
        """A number that grows with each change, whoever makes it; None if the kernel does not tell it."""
        with suppress(OSError):
            for _, body in self._netlink().request(_GETGEN, _HEAD.pack(_NFPROTO_INET, 0, 0)):
                value = dict(read_attributes(body[_HEAD.size :])).get(_GEN_ID, b"")
                return int.from_bytes(value, "big")
        return None

    def counters(self, table: str) -> Mapping[str, int]:
        """Numbers of packets, by the name of the counter; empty if the table does not exist."""
        return self._counted(table, _COUNTER_PACKETS)

    def counted_bytes(self, table: str) -> Mapping[str, int]:
        """Numbers of bytes, in the same way."""
        return self._counted(table, _COUNTER_BYTES)

    def _counted(self, table: str, what: int) -> Mapping[str, int]:
        body = _HEAD.pack(_NFPROTO_INET, 0, 0) + pack_attribute(_OBJ_TABLE, table.encode() + b"\0")
        body += pack_attribute(_OBJ_TYPE, _COUNTER.to_bytes(4, "big"))
        found: dict[str, int] = {}
        with suppress(NetlinkError, OSError):
            for each in self._netlink().dump(_GETOBJ, body):
                attributes = dict(read_attributes(each[_HEAD.size :]))
                data = dict(read_attributes(attributes.get(_OBJ_DATA, b"")))
                name = attributes.get(_OBJ_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
                found[name] = int.from_bytes(data.get(what, b""), "big")
        return found

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _netlink(self) -> NetlinkSocket:
        if self._socket is None:
            self._socket = NetlinkSocket(_NETLINK_NETFILTER)
        return self._socket

    async def _run(self, *words: str, text: str = "") -> str:
        try:
            status, out, errors = await output_of((self._program, *words), NFT_TIME, text.encode())
        except TimeoutError:
            raise NftError(f"nft did not finish within {NFT_TIME:g} s") from None
        except OSError as error:
            raise NftError(f"nft: {error.strerror}") from None
        if status:
            first = errors.decode("utf-8", "replace").strip().splitlines()[:1]
            raise NftError(first[0][:200] if first else f"nft: exit status {status}")
        return out.decode("utf-8", "replace")


def read_listing(text: str) -> Any:
    """The JSON of `nft -j list`. Raises NftError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NftError(f"nft list: the output is not JSON: {error}") from None


def connections_tracked() -> bool:
    """Whether somebody's rules make the kernel track connections in this network namespace."""
    try:
        return int(TRACKED.read_text()) > 0
    except (OSError, ValueError):
        return False
