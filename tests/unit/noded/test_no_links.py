"""A node without WireGuard links says why it has none, if that is known."""

from __future__ import annotations

import asyncio
from pathlib import Path

from re6st.core.prefix import Prefix
from re6st.noded.no_links import NoLinks
from re6st.service.tasks import Tasks


class Kernel:
    async def delete_link(self, name: str) -> None: ...


def test_a_machine_without_wireguard_says_so_of_each_tunnel(tmp_path: Path) -> None:
    async def run() -> None:
        async with Tasks() as tasks:
            lacking = NoLinks(Kernel(), tmp_path, tasks, "not here: it is not installed")
            assert lacking.why_not(Prefix(1, 16)) == "not here: it is not installed"
            assert NoLinks(Kernel(), tmp_path, tasks).why_not(Prefix(1, 16)) == "", "nobody wanted it"

    asyncio.run(run())
