"""The operator's page of a real network, in a real Chromium: who comes and goes is seen, who is revoked is cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from re6st.cli.registry.page import DEFAULT_PORT
from testbed import Bed, Network, Node, wait_until
from testbed.forward import Forward

CHROMIUM = "/usr/bin/chromium"
FORMS = 90
SEEN = 60_000
"""Milliseconds for the page to show what happened; one to three seconds usually."""
CUT = 60


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Everything it shows is ours; its sandbox does not work for root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 5, registry_options=["--web", str(DEFAULT_PORT)])
    network.start()
    network.wait_connected(FORMS)
    return network


class Looked:
    """A page, and what went wrong in it."""

    def __init__(self, browser: Browser, url: str, **options: object) -> None:
        self.page: Page = browser.new_context(base_url=url, **options).new_page()  # type: ignore[arg-type]
        self.page.set_default_timeout(SEEN)
        self.wrong: list[str] = []
        self.asked: set[str] = set()
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url.split("/")[2]))


def row(node: Node, kind: str) -> str:
    return f"#node-{node.prefix.value}-{node.prefix.length} .dot.{kind}"


def state_in_graph(page: Page, node: Node) -> str:
    """The state that the graph has for a node, once it is drawn."""
    found: str = page.evaluate(
        "async cn => (await (await fetch('/topology.json')).json()).nodes.find(node => node.cn === cn)?.state",
        node.prefix.cn,
    )
    return found


def test_a_node_stops_and_its_dot_turns_and_a_revoked_one_is_cut_off(
    network: Network, bed: Bed, chromium: Browser
) -> None:
    first, *_, revoked, stopped = network.nodes
    with Forward(network.registry_host, DEFAULT_PORT) as forward:
        url = f"http://127.0.0.1:{forward.port}"
        looked = Looked(chromium, url)
        page = looked.page
        page.goto("/")
        page.wait_for_selector("text=All is well.")
        assert page.inner_text(".card b >> nth=0") == "5 / 5"

        # The graph is drawn, with every node in it and the tunnels between them.
        graph = Looked(chromium, url, color_scheme="dark")
        graph.page.goto("/topology")
        graph.page.wait_for_selector("#graph[data-drawn]")
        graph.page.wait_for_selector(r"#live-counts >> text=/^5 of 5 nodes, [1-9]\d* tunnels/")
        assert graph.page.is_visible("#canvas")
        assert state_in_graph(graph.page, first) == "registry"
        assert state_in_graph(graph.page, stopped) in ("direct", "indirect")

        check_small_without_scripts(chromium, url)

        # A node stops: without a hand on the page its dot turns, and back when it is back.
        page.goto("/nodes")
        page.wait_for_selector(row(stopped, "online"))
        stopped.stop()
        page.wait_for_selector(row(stopped, "offline"))
        graph.page.wait_for_selector("#live-counts >> text=/^4 of 5 nodes/")
        assert state_in_graph(graph.page, stopped) == "offline"
        stopped.start()
        page.wait_for_selector(row(stopped, "online"))

        # Another one is revoked, and cut off.
        page.click(f"text={revoked.prefix.cn}")
        page.click("text=Revoke…")
        page.fill("[name=reason]", "stolen")
        page.fill("[name=confirm]", "nothing")
        page.click("button:has-text('Revoke')")
        page.wait_for_selector("text=nothing was revoked")
        page.fill("[name=confirm]", revoked.prefix.cn)
        page.fill("[name=reason]", "stolen")
        page.click("button:has-text('Revoke')")
        page.wait_for_selector("td:has-text('stolen')")

        def cut_off() -> bool:
            return all(rtt is None for pair, rtt in network.pings(timeout=0.3).items() if revoked in pair)

        wait_until(cut_off, CUT, "nobody reaches the revoked node", bed.tails)
        page.wait_for_selector("text=4 of 4 online nodes have it")

        # A token lets its holder in again.
        page.click("nav >> text=Tokens")
        page.fill("[name=email]", "back@example.org")
        page.click("text=Make a token")
        join = page.inner_text("#join")
        match = re.search(r"(sha256:[0-9a-f]{64}),token=([a-z]{18})", join)
        assert match, join
        assert match[1] == network.fingerprint
        revoked.stop()
        revoked.enrol(network.url, network.fingerprint, "--token", match[2])
        page.click("nav >> text=Nodes")
        page.wait_for_selector("td:has-text('back@example.org')")

        refused = [line for line in looked.wrong if "400 (Bad Request)" not in line]  # the wrong name typed
        assert refused == [], "no script failed, and the content security policy refused nothing"
        assert graph.wrong == []
        assert looked.asked | graph.asked == {f"127.0.0.1:{forward.port}"}, "no other host was asked"


def check_small_without_scripts(browser: Browser, url: str) -> None:
    """At 400 pixels nothing is cut off, and without scripts everything is there."""
    small = Looked(browser, url, viewport={"width": 400, "height": 800}, java_script_enabled=False)
    for path in ("/", "/nodes", "/nodes/0/16", "/tokens", "/revoked", "/network", "/topology", "/events"):
        small.page.goto(path)
        assert small.page.evaluate("document.documentElement.scrollWidth") <= 400, path
    small.page.goto("/topology")
    assert small.page.locator("#drawing circle").count() == 5
    assert not small.page.is_visible("#canvas")
    assert small.wrong == []
