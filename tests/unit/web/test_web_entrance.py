"""Who is let in to the operator's page, and what odd requests get."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from demo.page import Simulation
from re6st.cli.registry.page import Listen
from re6st.web.bounds import BOUNDS, PageBounds
from tests.unit.browser import STRANGER, VIEWS, Browser, run

OTHERS = ("/nodes.csv", "/topology.dot", "/stream")
FORMS = ("/tokens", "/tokens/delete", "/nodes/1/16/revoke", "/network/rotate")


# --- who comes in ---


def test_every_view_has_a_twin_and_the_same_headers(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        for path, twin in VIEWS.items():
            page, record = await browser.get(path), await browser.get(twin)
            assert page.status == record.status == 200, (path, page.text)
            assert page.headers["Content-Type"].startswith("text/html")
            assert record.json["schema"] == 1
            for each in (page, record):
                policy = each.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert each.headers["X-Content-Type-Options"] == "nosniff"
                assert each.headers["Cache-Control"] == "no-store"

    run(tmp_path, test)


def test_pages_have_nothing_inline_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        for path in VIEWS:
            text = (await browser.get(path)).text
            assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|<style|\bstyle=|javascript:", text), path
            for target in re.findall(r'(?:src|href|action)="([^"]*)"', text):
                assert target.startswith(("/", "#")), target
                assert not target.startswith("//")
                if target.startswith("/static/"):
                    assert (await browser.get(target)).status == 200, target

    run(tmp_path, test)


def test_a_stranger_is_asked_to_log_in_for_all_of_it(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        for path in [*VIEWS, *OTHERS]:
            answer = await browser.get(path, **STRANGER)
            assert (answer.status, answer.headers.get("Location")) == (303, "/login"), path
        for path in VIEWS.values():
            assert (await browser.get(path, **STRANGER)).status == 401, path
        for path in FORMS:
            assert (await browser.post(path, {"confirm": "1/16"}, **STRANGER)).status == 401, path
        page = await browser.get("/login", **STRANGER)
        assert page.status == 200
        assert "Nodes" not in page.text, "no view is offered"

    run(tmp_path, test)


def test_behind_a_web_server_that_does_not_say_who_asks_everybody_logs_in(tmp_path: Path) -> None:
    """nginx, if it is told nothing else, passes on what the client claims, for the name localhost."""

    async def test(browser: Browser) -> None:
        for lines in ("", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-For: ::1, 127.0.0.1\r\n"):
            reader, writer = await asyncio.open_unix_connection(str(browser.socket))
            writer.write(f"GET /nodes.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode())
            assert (await reader.readline()).split()[1] == b"401", lines
            writer.close()

    run(tmp_path, test)


def test_one_who_tries_to_log_in_too_often_keeps_nobody_else_out(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        for _ in range(20):
            last = await browser.bare("POST", "/login", {"token": "x"}, **STRANGER)
        assert last.status == 429
        made = await browser.simulation.admin.call("web-login", {})
        token = made["path"].partition("#")[2]
        other = {"X-Forwarded-For": "198.51.100.9"}
        assert (await browser.bare("POST", "/login", {"token": token}, **other)).status == 303

    run(tmp_path, test)


def test_a_link_logs_in_and_a_session_ends(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        made = await browser.simulation.admin.call("web-login", {})
        assert made["url"] is None, "it is served on a unix socket"
        token = made["path"].partition("#")[2]
        page = await browser.get("/login", **STRANGER)
        assert "/static/login.js" in page.text, "what moves the word from behind the # into the form"
        wrong = await browser.bare("POST", "/login", {"token": token[::-1]}, **STRANGER)
        assert wrong.status == 403
        entered = await browser.bare("POST", "/login", {"token": token}, **STRANGER)
        assert entered.status == 303
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert (await browser.get("/nodes", **STRANGER)).status == 200
        assert (await browser.bare("POST", "/login", {"token": token}, **STRANGER)).status in (400, 403), "it is used"
        assert (await browser.post("/logout", **STRANGER)).status == 303
        assert (await browser.get("/nodes", **STRANGER)).status == 303

    run(tmp_path, test)


def test_this_machine_too_logs_in_where_that_is_wanted(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        assert (await browser.get("/nodes.json")).status == 401
        assert (await browser.get("/static/style.css")).status == 200

    run(tmp_path, test, always_login=True)


def test_a_name_of_somebody_elses_is_not_let_in(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        assert (await browser.get("/nodes.json", Host="rebinding.example")).status == 401

    run(tmp_path, test)


@pytest.mark.parametrize("path", FORMS)
def test_forged_forms_change_nothing(tmp_path: Path, path: str) -> None:
    async def test(browser: Browser) -> None:
        form = {"confirm": "1/16" if "revoke" in path else "yes", "id": "x"}
        assert (await browser.bare("POST", path, form)).status == 400
        assert (await browser.bare("POST", path, form | {"form": "0" * 64})).status == 400
        assert (await browser.post(path, form, Origin="http://evil.example")).status == 400
        assert (await browser.post(path, form, Origin="null")).status == 400
        assert (await browser.post(path, form, Sec_Fetch_Site="cross-site")).status == 400
        assert (await browser.get(f"{path}?confirm=1/16")).status in (200, 404, 405), "a GET changes nothing"
        record = (await browser.get("/overview.json")).json
        assert (record["tokens"], record["revoked"], record["keys"]) == (0, 0, "stable")

    run(tmp_path, test)


def test_odd_requests_are_refused_in_one_line(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        for path in ("/nothing", "/nodes/99/16", "/nodes/99999/16", "/static/../server.py", "/static/nothing.js"):
            assert (await browser.get(path)).status == 404, path
        missing = await browser.get("/nodes/9999/16.json")
        assert (missing.status, missing.json["error"]) == (404, "9999/16: no such node")
        assert (await browser.post("/tokens", {"email": "x" * 20_000})).status == 413
        for query in ("page=-1", "page=x", "sort=;drop", "state=zz", "search=%00%ff", "search=99999999999999999999"):
            assert (await browser.get(f"/nodes?{query}")).status == 200, query
        for path in ("/tokens?after=x", "/events?kind=x"):
            assert (await browser.get(path)).status == 200, path
        assert (await browser.get("/revoked?after=x")).status == 400

    run(tmp_path, test)


def test_one_address_holds_but_its_share_of_the_connections_to_the_page(tmp_path: Path) -> None:
    async def test(port: int) -> None:
        idle = [await _connect(port, "127.0.0.2") for _ in range(20)]
        assert await _status(await _connect(port, "127.0.0.3")) == b"401"
        answers = [await _status(each) for each in idle]
        assert answers.count(b"401") == 3, "the others went for its own later ones"

    _on_a_port(tmp_path, test, PageBounds(share=3))


@pytest.mark.parametrize(
    "slow",
    [
        b"GET /nodes.json HTT",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\nco",
    ],
    ids=["head", "body"],
)
def test_a_slow_request_to_the_page_is_cut(tmp_path: Path, slow: bytes) -> None:
    async def test(port: int) -> None:
        reader, writer = await _connect(port, "127.0.0.2")
        writer.write(slow)
        async with asyncio.timeout(20):
            try:
                assert (await reader.read()).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 408 Request Timeout")
            except ConnectionResetError:
                pass
        writer.close()

    _on_a_port(tmp_path, test, PageBounds(head=0.2, form=0.2))


def _on_a_port(directory: Path, test: Callable[[int], Awaitable[None]], bounds: PageBounds = BOUNDS) -> None:
    async def main() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        simulation = Simulation(directory, 1)
        try:
            await simulation.fill()
            async with simulation.serve(Listen(port=port), bounds=bounds), asyncio.timeout(60):
                await test(port)
        finally:
            await simulation.close()

    asyncio.run(main())


async def _connect(port: int, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(200):
        try:
            return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        except ConnectionRefusedError:  # it is just starting
            await asyncio.sleep(0.05)
    raise AssertionError("nobody listens")


@pytest.mark.parametrize(
    "headers", ["", "Host: 127.0.0.1\r\nHost: re6st.example\r\n", "Host: 127.0.0.1\r\nOrigin: a\r\nOrigin: b\r\n"]
)
def test_a_request_that_does_not_say_for_whom_it_is_is_refused(tmp_path: Path, headers: str) -> None:
    async def test(port: int) -> None:
        reader, writer = await _connect(port, "127.0.0.1")
        writer.write(f"GET /nodes.json HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()

    _on_a_port(tmp_path, test)


async def _status(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    """Of an answer to a request for the nodes; empty where the connection was cut."""
    reader, writer = connection
    try:
        writer.write(b"GET /nodes.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        return line.split()[1] if line else b""
    except ConnectionError:
        return b""
    finally:
        writer.close()
