"""A browser of the operator's page, and the registry that serves it, for tests."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from demo.page import Simulation
from re6st.cli.registry.page import Listen, WebPage

VIEWS = {
    "/": "/overview.json",
    "/nodes": "/nodes.json",
    "/nodes/1/16": "/nodes/1/16.json",
    "/nodes/1/16/revoke": "/nodes/1/16/revoke.json",
    "/tokens": "/tokens.json",
    "/revoked": "/revoked.json",
    "/network": "/network.json",
    "/topology": "/topology.json",
    "/events": "/events.json",
}
"""Every view, and its twin."""
OPERATOR = "192.0.2.7"
AS_OPERATOR = {"X-Forwarded-For": OPERATOR}
STRANGER = {"X-Forwarded-For": "203.0.113.5"}
HOSTILE = '"><script>alert(1)</script>@evil.example'


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found


class Browser:
    """Asks for pages as a browser does: it keeps its cookie, and sends the forms of the last page."""

    def __init__(self, client: aiohttp.ClientSession, simulation: Simulation, page: WebPage, socket: Path) -> None:
        self.client = client
        self.socket = socket
        self.simulation = simulation
        self.page = page

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, form: Mapping[str, str] | None = None, /, **headers: str) -> Answer:
        """Send a form, with the token of the visitor."""
        shown = await self.get("/tokens", **headers)
        match = re.search(r'name="form" value="(\w+)"', shown.text)
        return await self._ask("POST", path, {"form": match[1] if match else "", **(form or {})}, headers)

    async def _ask(self, method: str, path: str, form: dict[str, str] | None, headers: dict[str, str]) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1{path}"
        async with self.client.request(method, url, data=form, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, dict(response.headers), await response.text())

    async def bare(self, method: str, path: str, form: dict[str, str], **headers: str) -> Answer:
        """Without the token of a visitor."""
        return await self._ask(method, path, form, headers)


Test = Callable[[Browser], Awaitable[None]]


@asynccontextmanager
async def serving(directory: Path, nodes: int, *, always_login: bool = False) -> AsyncIterator[Browser]:
    simulation = Simulation(directory, nodes)
    path = directory / "page.sock"
    try:
        await simulation.fill()
        async with simulation.serve(Listen(path=path), (OPERATOR,), always_login=always_login) as page:
            jar = aiohttp.CookieJar(unsafe=True)  # 127.0.0.1 has no name
            connector = aiohttp.UnixConnector(str(path))
            async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, headers=AS_OPERATOR) as client:
                yield Browser(client, simulation, page, path)
    finally:
        await simulation.close()


def run(directory: Path, test: Test, nodes: int = 12, *, always_login: bool = False, timeout: float = 60) -> None:
    async def main() -> None:
        async with asyncio.timeout(timeout), serving(directory, nodes, always_login=always_login) as browser:
            await test(browser)

    asyncio.run(main())
