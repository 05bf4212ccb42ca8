"""The program that tests play leaves nothing open, whenever it ends."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from pathlib import Path

import pytest

from tests.unit.fake_program import FakeChild


@pytest.mark.parametrize("turns", range(6))
def test_one_that_ends_while_somebody_connects_closes_the_connection(tmp_path: Path, turns: int) -> None:
    path = str(tmp_path / "socket")

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        child = FakeChild(["program"])
        await child.listen(path, script)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            for _ in range(turns):
                await asyncio.sleep(0)
            await child.stop()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()
