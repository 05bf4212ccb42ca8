"""The operator's page over HTTP, with a real registry and a mesh that is made up: what it shows, does and refuses."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from demo.page import Simulation
from re6st.api.operations import AdminError
from re6st.cli.registry.page import Listen, WebPage
from re6st.core.prefix import Prefix
from re6st.core.routing.told_claims import ToldClaims
from re6st.registryd.events import Kind
from re6st.registryd.records import NODE_SORTS
from re6st.web import entrance, server
from re6st.web.node_query import NodeQuery
from re6st.web.render import STATIC, csv_text
from re6st.web.views import Place, Views
from re6st.web.watch import Picture, Watch

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
OTHERS = ("/nodes.csv", "/topology.dot", "/stream")
FORMS = ("/tokens", "/tokens/delete", "/nodes/1/16/revoke", "/network/rotate")
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
        token = made["path"].partition("token=")[2]
        other = {"X-Forwarded-For": "198.51.100.9"}
        assert (await browser.bare("POST", "/login", {"token": token}, **other)).status == 303

    run(tmp_path, test)


def test_a_link_logs_in_and_a_session_ends(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        made = await browser.simulation.admin.call("web-login", {})
        assert made["url"] is None, "it is served on a unix socket"
        token = made["path"].partition("token=")[2]
        page = await browser.get(made["path"], **STRANGER)
        assert token in page.text
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


# --- what it shows ---


def test_nodes_are_found_sorted_and_in_pages(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        async def cns(query: str) -> list[str]:
            return [node["cn"] for node in (await browser.get(f"/nodes.json?{query}")).json["nodes"]]

        everyone = await cns("")
        assert len(everyone) == 50
        assert everyone[:2] == ["0/16", "1/16"]
        assert len(await cns("page=3")) == 20
        assert await cns("page=9") == []
        node = (await browser.get("/nodes/7/16.json")).json
        for search in ("7/16", node["address"], node["subnet"], str(node["serial"]), node["email"]):
            assert await cns(f"search={search}") == ["7/16"], search
        assert await cns("search=%25") == [], "no wildcard"
        assert (await cns("sort=address&descending=1"))[0] == "119/16"
        ends = [each["expires"] for each in (await browser.get("/nodes.json?sort=expires")).json["nodes"]]
        assert ends == sorted(ends)
        away = [prefix.cn for prefix in sorted(browser.simulation.node.away)]
        assert await cns("state=offline") == away
        table = list(csv.DictReader((await browser.get("/nodes.csv")).text.splitlines()))
        assert len(table) == 120
        assert table[7]["email"] == node["email"]

    run(tmp_path, test, 120)


def test_an_email_address_is_no_html_and_no_formula(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        simulation = browser.simulation

        def spoil(ledger: Any) -> None:
            ledger._db.execute("UPDATE re6st_seen SET software = ?1 WHERE prefix = ?2", (HOSTILE, Prefix(1, 16).bits))

        await simulation.store.change(spoil)
        simulation.registry.events.note(Kind.REFUSED, HOSTILE)
        await simulation.registry.tokens.new(HOSTILE, 16)
        for path in VIEWS:
            assert "<script>alert" not in (await browser.get(path)).text, path
        for path in ("/nodes/1/16", "/tokens", "/events"):
            assert escape(HOSTILE)[:20].replace("&quot;", "&#34;") in (await browser.get(path)).text, path
        found = await browser.get("/nodes?search=%22%3E%3Cscript%3E")
        assert '"><script>' not in found.text

    run(tmp_path, test)
    row = dict.fromkeys(("cn", "subnet", "address", "online", "seen", "version", "protocol", "tunnels"), "")
    row |= dict.fromkeys(("issued", "expires", "serial", "revoked"), "")
    assert "'=cmd" in csv_text([row | {"email": "=cmd|' /C calc'!A0"}])


def test_no_secret_is_on_any_page(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        simulation = browser.simulation
        token = await simulation.registry.tokens.new("a@example.org", 16)
        keys = (await simulation.store.read(lambda queries: queries.babel_state())).keys
        secrets = [token, *(form for key in keys if key for form in (key.hex(), repr(key)[2:-1]))]
        for path in [*VIEWS, *VIEWS.values(), "/nodes.csv"]:
            text = (await browser.get(path)).text
            assert not [secret for secret in secrets if secret in text], path
            assert "PRIVATE" not in text
            assert "hmac" not in text.lower()

    run(tmp_path, test)


def test_the_topology_tells_who_falls_off(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        while not (record := (await browser.get("/topology.json")).json)["tunnels"]:
            await asyncio.sleep(0.05)
        nodes = {node["cn"]: node for node in record["nodes"]}
        assert nodes["0/16"]["state"] == "registry"
        assert {node["state"] for node in nodes.values()} >= {"direct", "indirect", "offline"}
        end, *hanging = (f"{number}/16" for number in (37, 38, 39))
        assert nodes[end]["cut"]
        assert not nodes[hanging[0]]["cut"]
        cut = {record["nodes"][edge["from"]]["cn"] for edge in record["tunnels"] if edge["cut"]}
        assert cut == set(hanging)
        page = (await browser.get("/topology")).text
        assert page.count("<circle") == 40
        assert f'"{hanging[0]}" -> "{end}" [style=dashed]' in (await browser.get("/topology.dot")).text

    run(tmp_path, test, 40)


def test_a_node_that_goes_is_told_at_once(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        node = browser.simulation.node
        gone = Prefix(3, 16)
        node.away.discard(gone)
        assert (await browser.get("/nodes/3/16.json")).json["online"]
        async with browser.client.get("http://127.0.0.1/stream") as stream:
            first = await stream.content.readline()
            node.away.add(gone)
            while (line := await stream.content.readline()) == first or not line.startswith(b"data: "):
                pass
        record = (await browser.get("/nodes/3/16.json")).json
        assert not record["online"]
        assert record["events"][0]["kind"] == "offline"
        assert 'class="dot offline"' in (await browser.get("/nodes?search=3/16")).text

    run(tmp_path, test)


def test_ten_thousand_nodes(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        await browser.get("/")
        times = {}
        for path in ("/", "/nodes", "/nodes?page=199&sort=email", "/nodes?search=alice", "/nodes?state=offline",
                     "/topology", "/topology.json"):  # fmt: skip
            began = time.monotonic()
            assert (await browser.get(path)).status == 200
            times[path] = time.monotonic() - began
        print({path: round(seconds, 3) for path, seconds in times.items()})
        assert max(times.values()) < 10, "usually a tenth"

    run(tmp_path, test, 10_000, timeout=300)


def test_a_list_is_sorted_by_each_column_both_ways(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        for sort in NODE_SORTS:
            for way in ("", "&descending=1"):
                for path in ("/nodes", "/nodes.json", "/nodes.csv"):
                    answer = await browser.get(f"{path}?sort={sort}{way}")
                    assert answer.status == 200, (path, sort, way, answer.text)
        newest = [
            each["seen"] or "" for each in (await browser.get("/nodes.json?sort=seen&descending=1")).json["nodes"]
        ]
        assert newest == sorted(newest, reverse=True)

    run(tmp_path, test)


def views_of(browser: Browser, picture: Picture) -> Views:
    """Records as of a mesh that looks so."""
    made = browser.simulation
    watch = Watch(made.registry)
    watch.picture = picture
    return Views(made.registry, made.admin, watch, Place("https://re6st.example.org/"))


def test_tunnels_are_unknown_until_somebody_was_asked(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        views = views_of(browser, Picture(own=Prefix(0, 16), online=frozenset({Prefix(0, 16), Prefix(1, 16)})))
        overview = await views.overview()
        assert (overview["tunnels"], overview["crawled"]) == (None, None)
        assert {node["tunnels"] for node in (await views.nodes(NodeQuery()))["nodes"]} == {None}
        assert (await views.node("1/16", ask=False))["tunnels"] is None

    run(tmp_path, test)


def test_the_tunnels_of_a_node_that_is_offline_are_not_shown_as_up(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        gone, other = Prefix(1, 16), Prefix(2, 16)
        picture = Picture(online=frozenset({Prefix(0, 16), other}), tunnels=frozenset({(gone, other)}), crawled=1.0)
        views = views_of(browser, picture)
        (tunnel,) = (await views.node("1/16", ask=False))["tunnels"]
        assert (tunnel["online"], tunnel["alive"]) == (True, False)
        (tunnel,) = (await views.node("2/16", ask=False))["tunnels"]
        assert (tunnel["online"], tunnel["alive"]) == (False, False)

    run(tmp_path, test)


def test_the_subject_of_a_certificate_is_named_as_by_re6st_conf(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        assert (await browser.get("/nodes/1/16.json")).json["subject"] == "serialNumber=1, CN=1/16"

    run(tmp_path, test)


# --- what it does ---


def test_on_a_phone_a_token_has_what_is_needed_to_delete_it(tmp_path: Path) -> None:
    """Columns that are `wide` are left out there: with them, the last one was off the screen."""

    async def test(browser: Browser) -> None:
        await browser.post("/tokens", {"email": "a.long.name@subdomain.example.org"})
        row = re.search(r"<tbody>(.*?)</tr>", (await browser.get("/tokens")).text, re.S)
        assert row
        cells = re.findall(r"<td([^>]*)>", row[1])
        assert ["wide" in cell for cell in cells] == [False, False, True, True, False, False]

    run(tmp_path, test)


def test_each_token_made_and_deleted_is_an_event_wherever_it_was_done(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        await browser.post("/tokens", {"email": "new@example.org"})
        made = await browser.simulation.admin.call("invite", {})
        await browser.simulation.admin.call("delete-token", {"token": made["token"]})
        events = (await browser.get("/events.json?kind=token")).json["events"]
        assert [event["text"] for event in events] == [
            "one for anybody was deleted",
            "made for anybody, prefix /16",
            "made for new@example.org, prefix /16",
        ]
        assert not any(made["token"] in event["text"] for event in events)

    run(tmp_path, test)


def test_a_token_is_made_shown_once_and_deleted(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        page = await browser.post("/tokens", {"email": "new@example.org", "days": "7"})
        assert page.status == 200
        match = re.search(r"re6st-conf --join [^<]*token=([a-z]{18})", page.text)
        assert match, page.text
        assert "https://re6st.example.org/#sha256:" in page.text
        assert match[1] not in (await browser.get("/tokens")).text
        (token,) = (await browser.get("/tokens.json")).json["tokens"]
        assert token["token"] == match[1][:2] + "•" * 6
        assert (await browser.post("/tokens/delete", {"id": token["id"]})).status == 303
        assert (await browser.get("/tokens.json")).json["tokens"] == []
        assert (await browser.post("/tokens/delete", {"id": token["id"]})).status == 404
        for form in ({"email": "x y"}, {"days": "0"}, {"days": "-1"}, {"days": "1e9"}, {"prefix_length": "129"}):
            assert (await browser.post("/tokens", form)).status == 400, form

    run(tmp_path, test)


def test_a_node_is_revoked_when_its_name_is_typed(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        for typed in ("", "2/16", "1/16x"):
            refused = await browser.post("/nodes/1/16/revoke", {"confirm": typed})
            assert refused.status == 400
            assert "nothing was revoked" in refused.text
        done = await browser.post("/nodes/1/16/revoke", {"confirm": " 1/16 ", "reason": "stolen"})
        assert (done.status, done.headers["Location"]) == (303, "/revoked")
        (row,) = (await browser.get("/revoked.json")).json["revoked"]
        assert (row["cn"], row["reason"]) == ("1/16", "stolen")
        assert (await browser.get("/nodes/1/16")).status == 404
        assert (await browser.post("/nodes/1/16/revoke", {"confirm": "1/16"})).status == 404
        events = (await browser.get("/events.json?kind=revoked")).json["events"]
        assert [(event["cn"], event["text"]) for event in events] == [("1/16", "node 1/16: stolen")]

    run(tmp_path, test)


def test_only_a_certificate_is_revoked(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        assert (await browser.post("/nodes/2/16/revoke", {"confirm": "2/16", "keep": "1"})).status == 303
        node = (await browser.get("/nodes/2/16.json")).json
        assert node["revoked"]
        again = await browser.post("/nodes/2/16/revoke", {"confirm": "2/16", "keep": "1"})
        assert again.status == 409
        assert "revoked already" in again.text

    run(tmp_path, test)


def test_the_key_is_changed_step_by_step(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        assert (await browser.post("/network/rotate")).status == 400
        assert (await browser.post("/network/rotate", {"confirm": "yes"})).status == 303
        assert (await browser.get("/network.json")).json["keys"] == "phase 1"

    run(tmp_path, test)


def test_without_a_page_there_is_no_login(tmp_path: Path) -> None:
    async def main() -> None:
        simulation = Simulation(tmp_path, 1)
        await simulation.fill()
        try:
            with pytest.raises(AdminError, match="no operator's page"):
                await simulation.admin.call("web-login", {})
        finally:
            await simulation.close()

    asyncio.run(main())


def test_the_libraries_come_with_their_licence() -> None:
    licences = (STATIC / "LICENSES").read_text()
    for path in STATIC.glob("*.min.js"):
        assert path.name in licences


def test_one_address_holds_but_its_share_of_the_connections_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "SHARE", 3)

    async def test(port: int) -> None:
        idle = [await _connect(port, "127.0.0.2") for _ in range(20)]
        assert await _status(await _connect(port, "127.0.0.3")) == b"401"
        answers = [await _status(each) for each in idle]
        assert answers.count(b"401") == 3, "the others went for its own later ones"

    _on_a_port(tmp_path, test)


@pytest.mark.parametrize(
    "slow",
    [
        b"GET /nodes.json HTT",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\nco",
    ],
    ids=["head", "body"],
)
def test_a_slow_request_to_the_page_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bytes) -> None:
    monkeypatch.setattr(server, "HEAD_TIMEOUT", 0.2)
    monkeypatch.setattr(server, "FORM_TIMEOUT", 0.2)

    async def test(port: int) -> None:
        reader, writer = await _connect(port, "127.0.0.2")
        writer.write(slow)
        async with asyncio.timeout(20):
            try:
                assert (await reader.read()).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 408 Request Timeout")
            except ConnectionResetError:
                pass
        writer.close()

    _on_a_port(tmp_path, test)


def _on_a_port(directory: Path, test: Callable[[int], Awaitable[None]]) -> None:
    async def main() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        simulation = Simulation(directory, 1)
        try:
            await simulation.fill()
            async with simulation.serve(Listen(port=port)), asyncio.timeout(60):
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


def test_the_overview_and_the_page_of_a_node_say_who_announced_what_is_not_his(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        claims = ToldClaims((Prefix(1, 16),), ("2/16",), (Prefix(3, 16),))
        views = views_of(browser, Picture(own=Prefix(0, 16), online=frozenset({Prefix(0, 16)}), claims=claims))
        problems = "\n".join((await views.overview())["problems"])
        assert "1/16 announced what is not its subnet" in problems
        assert "The subnet of the registry's node is announced by another machine too, by way of 2/16" in problems
        assert "Two machines have the certificate of 3/16" in problems
        assert (await views.node("1/16", ask=False))["refused"]
        assert not (await views.node("2/16", ask=False))["refused"]

    run(tmp_path, test)


def test_who_announced_what_is_not_his_is_an_event_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(browser: Browser) -> None:
        node = FakeNode()
        made = browser.simulation
        watch = Watch(made.registry)
        monkeypatch.setattr(made.registry, "node", node)
        for _ in range(2):
            await watch._look_at_routes()
        node.claims = ToldClaims()
        await watch._look_at_routes()
        found = made.registry.events.newest(10, Kind.CLAIM)
        assert [(event.cn, event.count) for event in found] == [("1/16", 1)]
        assert watch.picture.claims == ToldClaims()

    run(tmp_path, test)


class FakeNode:
    """A node beside the registry that refuses somebody."""

    def __init__(self) -> None:
        self.claims = ToldClaims(refused=(Prefix(1, 16),))

    async def routes(self) -> list[Prefix]:
        return [Prefix(1, 16)]
