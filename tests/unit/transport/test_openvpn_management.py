"""The management connection of an OpenVPN: what it says comes in whole lines, or not at all."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from re6st.core.transport.openvpn_lines import Event, ProcessTraffic
from re6st.transport.openvpn import Management

LIMIT = 64


def heard(*pieces: bytes) -> list[Event]:
    """What a connection with a small buffer gives for bytes that come in pieces."""

    async def main() -> list[Event]:
        reader = asyncio.StreamReader(LIMIT)

        async def say() -> None:
            for piece in pieces:
                reader.feed_data(piece)
                for _ in range(5):
                    await asyncio.sleep(0)
            reader.feed_eof()

        management = Management(reader, cast(asyncio.StreamWriter, None))
        async with asyncio.TaskGroup() as group:
            group.create_task(say())
            return [event async for event in management.events()]

    return asyncio.run(main())


@pytest.mark.parametrize("padding", [LIMIT - 30, LIMIT, 2 * LIMIT, 5 * LIMIT])
def test_the_rest_of_a_line_that_is_too_long_is_no_line(padding: int) -> None:
    named = b">CLIENT:ENV,UV_x=" + b"x" * padding
    for pieces in (
        (named + b">BYTECOUNT:6,6\n>BYTECOUNT:1,2\n",),
        (named, b">BYTECOUNT:6,6\n", b">BYTECOUNT:1,2\n"),
        (named, b">BYTECOUNT:6,6", b"\n>BYTECOUNT:1,2\n"),
    ):
        assert heard(*pieces) == [ProcessTraffic(None, 1, 2)]


def test_a_line_that_is_cut_off_by_the_end_is_none() -> None:
    assert heard(b">BYTECOUNT:1,2\n>BYTECOUNT:1,23") == [ProcessTraffic(None, 1, 2)]
