"""The operator's page: what it shows, and what it does."""

from __future__ import annotations

import asyncio
import csv
import re
import time
from html import escape
from pathlib import Path
from typing import Any

import pytest

from demo.page import Simulation
from re6st.api.operations import AdminError
from re6st.core.prefix import Prefix
from re6st.core.routing.told_claims import ToldClaims
from re6st.registryd.events import EventKind
from re6st.registryd.records import NODE_SORTS
from re6st.web.node_query import NodeQuery
from re6st.web.render import STATIC, csv_text
from re6st.web.views import JoinAddress, Views
from re6st.web.watch import Picture, Watch
from tests.unit.browser import HOSTILE, VIEWS, Browser, run

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
        simulation.registry.events.note(EventKind.REFUSED, HOSTILE)
        await simulation.registry.tokens.new(HOSTILE, 16)
        for path in VIEWS:
            assert "<script>alert" not in (await browser.get(path)).text, path
        for path in ("/nodes/1/16", "/tokens", "/events"):
            assert escape(HOSTILE)[:20].replace("&quot;", "&#34;") in (await browser.get(path)).text, path
        found = await browser.get("/nodes?search=%22%3E%3Cscript%3E")
        assert '"><script>' not in found.text

    run(tmp_path, test)
    row = dict.fromkeys(("cn", "name", "subnet", "address", "online", "seen", "version", "protocol", "tunnels"), "")
    row |= dict.fromkeys(("online_since", "offline_since"), "")
    row |= dict.fromkeys(("issued", "expires", "serial", "revoked", "tags"), "")
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


def test_the_topology_has_the_names_of_machines(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        await browser.simulation.admin.call("name", {"target": "3/16", "name": "web1"})
        while not (record := (await browser.get("/topology.json")).json)["tunnels"]:
            await asyncio.sleep(0.05)
        assert {node["cn"]: node["name"] for node in record["nodes"] if node["name"]} == {"3/16": "web1"}
        assert "3/16 web1</text>" in (await browser.get("/topology")).text
        assert 'label="3/16 web1"' in (await browser.get("/topology.dot")).text
        assert [node["cn"] for node in (await browser.get("/nodes.json?search=web1")).json["nodes"]] == ["3/16"]
        table = {row["cn"]: row for row in csv.DictReader((await browser.get("/nodes.csv")).text.splitlines())}
        assert (table["3/16"]["name"], table["4/16"]["name"]) == ("web1", "")
        assert "web1" in (await browser.get("/nodes/3/16")).text

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
    return Views(made.registry, made.admin, watch, JoinAddress("https://re6st.example.org/"))


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
        browser.simulation.node.away = {gone}
        await browser.simulation.registry.presence.look()
        (tunnel,) = (await views.node("1/16", ask=False))["tunnels"]
        assert (tunnel["online"], tunnel["alive"]) == (True, False)
        (tunnel,) = (await views.node("2/16", ask=False))["tunnels"]
        assert (tunnel["online"], tunnel["alive"]) == (False, False)
        assert "online for" in (await browser.get("/nodes/2/16")).text

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
        assert ["wide" in cell for cell in cells] == [False, False, True, True, True, False, False]

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
        match = re.search(r"re6st-conf join [^<]*token=([a-z]{18})", page.text)
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


def test_an_invitation_has_a_link_and_its_code(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        page = await browser.post("/tokens", {})
        assert re.search(
            r'<code id="invitation">https://re6st.example.org/#sha256:[0-9a-f]{64},token=[a-z]{18}</code>', page.text
        )
        assert '<svg viewBox="' in page.text
        assert "style=" not in page.text, "the content security policy would refuse it"
        assert "<svg" not in (await browser.get("/tokens")).text

    run(tmp_path, test)


def test_a_token_may_be_for_several_machines_and_give_tags(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        page = await browser.post("/tokens", {"uses": "20", "tags": "web, paris"})
        assert "Each of up to 20 machines" in page.text
        assert "20 left" in page.text
        (token,) = (await browser.get("/tokens.json")).json["tokens"]
        assert (token["uses"], token["tags"]) == (20, ["paris", "web"])
        for form in ({"uses": "0"}, {"uses": "1000000"}, {"tags": "Web"}, {"tags": "<b>"}):
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


def test_the_overview_and_the_page_of_a_node_say_who_announced_what_is_not_his(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        claims = ToldClaims((Prefix(1, 16),), ("2/16",), (Prefix(3, 16),))
        views = views_of(browser, Picture(own=Prefix(0, 16), online=frozenset({Prefix(0, 16)}), claims=claims))
        problems = "\n".join((await views.overview())["problems"])
        assert "1/16 announced a subnet that is not its own" in problems
        assert "The subnet of the registry's node is announced by another machine too, by way of 2/16" in problems
        assert "Two machines have the certificate of 3/16" in problems
        assert (await views.node("1/16", ask=False))["refused"]
        assert not (await views.node("2/16", ask=False))["refused"]

    run(tmp_path, test)


def test_the_overview_says_if_who_is_online_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(browser: Browser) -> None:
        node, made = FakeNode(), browser.simulation
        watch = Watch(made.registry)
        monkeypatch.setattr(made.registry, "node", node)
        for late in (True, False):
            node.late, before = late, watch.picture.revision
            await watch._look_at_routes()
            assert watch.picture.revision > before, "pages are told"
            problems = "\n".join((await views_of(browser, watch.picture).overview())["problems"])
            assert ("Who is online is as it was a while ago" in problems) == late

    run(tmp_path, test)


def test_where_the_network_has_two_planes_pages_say_by_which_one_bulk_traffic_goes(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        assert "Bulk traffic" not in (await browser.get("/")).text + (await browser.get("/nodes/1/16")).text
        online = frozenset(Prefix(number, 16) for number in range(3))
        picture = Picture(own=Prefix(0, 16), online=online, by_capacity=frozenset({Prefix(1, 16)}))
        views = views_of(browser, picture)
        assert (await views.overview())["by_capacity"] == 1
        found = [(await views.node(f"{number}/16", ask=False))["by_capacity"] for number in range(4)]
        assert found == [None, True, False, None], "to itself, and to who is offline, nothing goes"
        browser.simulation.node.by_capacity = frozenset({Prefix(1, 16)})
        browser.simulation.node.away -= {Prefix(1, 16), Prefix(2, 16)}
        while "goes by capacity from here to 1 of" not in (await browser.get("/")).text:
            await asyncio.sleep(0.05)
        assert "from the registry's node by capacity" in (await browser.get("/nodes/1/16")).text
        assert "from the registry's node by latency, as all else" in (await browser.get("/nodes/2/16")).text

    run(tmp_path, test)


def test_where_the_machine_of_the_registry_has_several_lines_pages_say_how_each_is(tmp_path: Path) -> None:
    async def test(browser: Browser) -> None:
        assert "Its uplinks" not in (await browser.get("/")).text
        browser.simulation.node.uplinks = {"fibre": "up", "dsl": "silent"}
        while "<dd>fibre up, dsl silent</dd>" not in (await browser.get("/")).text:
            await asyncio.sleep(0.05)

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
        found = made.registry.events.newest(10, EventKind.CLAIM)
        assert [(event.cn, event.count) for event in found] == [("1/16", 1)]
        assert watch.picture.claims == ToldClaims()

    run(tmp_path, test)


class FakeNode:
    """A node beside the registry that refuses somebody."""

    def __init__(self) -> None:
        self.claims = ToldClaims(refused=(Prefix(1, 16),))
        self.late = False
        self.by_capacity: frozenset[Prefix] | None = None
        self.uplinks: dict[str, str] = {}

    async def routes(self) -> list[Prefix]:
        return [Prefix(1, 16)]
