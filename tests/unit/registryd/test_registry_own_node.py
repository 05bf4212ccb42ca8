"""The registry's own node is thrown out by nobody, and gets its place back where it lost it."""

from __future__ import annotations

from typing import Any

import pytest

from re6st import cert
from re6st.api.operations import Operations
from re6st.service.json_lines import Status
from tests.unit.api.test_registry_admin import refused, run
from tests.unit.browser import Browser
from tests.unit.browser import run as browse
from tests.unit.registry_world import DAY, A, B, World


@pytest.fixture
def world(tmp_path: Any, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def test_it_is_not_revoked_by_an_http_call(world: World) -> None:
    world.origins = ("127.0.0.1",)

    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()
        before = await world.parameters()
        assert (await world.call("revoke", cn_or_serial="0/16")).status == 409
        assert (await world.parameters()) == before
        assert (await world.call("hello", client_prefix=A.bits)).status == 200
        assert (await world.call("revoke", cn_or_serial="1/16")).status == 204

    run(world, test)


def test_its_certificate_may_be_revoked_and_is_renewed(world: World) -> None:
    """Nothing is lost by that: it keeps its subnet."""
    world.origins = ("127.0.0.1",)

    async def test(world: World, remote: Operations) -> None:
        first = await world.enrol()
        await remote.call("revoke", {"target": str(first.serial_number)})
        renewed = await world.in_session(await world.hello(A), "renewCertificate", A)
        assert cert.prefix_of_cert(cert.load_pem(renewed.body)) == A

    run(world, test)


def test_who_has_revoked_it_gives_the_registry_its_node_again(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()
        await world.store.change(lambda ledger: ledger.evict(A, world.now))  # as earlier versions did
        await world.registry.parameter_service.load()
        lost = await remote.call("own-node", {})
        assert (lost["own_node"], lost["certified"], lost["changed"]) == ("0/16", False, False)
        version = lost["version"]
        answer = await remote.call("own-node", {"target": "1/16"})
        assert (answer["own_node"], answer["before"], answer["certified"], answer["changed"]) == (
            *("1/16", "0/16"),
            *(True, True),
        )
        parameters = await world.parameters(B)
        assert parameters.registry_prefix == B
        assert answer["version"] == version + 1, "all nodes are told"
        assert cert.prefix_of_cert(await world.enrol()) not in (A, B), "nobody gets the prefix that was the registry's"
        (event,) = [each for each in world.registry.events.newest(9) if "own node" in each.text]
        assert (event.cn, event.text) == ("1/16", "the registry's own node, instead of 0/16")

    run(world, test)


def test_a_revoked_or_unknown_node_does_not_take_its_place(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        second = await world.enrol()
        await remote.call("revoke", {"target": str(second.serial_number)})
        status, text = await refused(remote.call("own-node", {"target": "1/16"}))
        assert status == Status.CONFLICT
        assert "is revoked" in text
        assert (await refused(remote.call("own-node", {"target": "7/16"})))[0] == Status.NOT_FOUND
        assert (await remote.call("own-node", {}))["own_node"] == "0/16"

    run(world, test)


def test_a_node_of_another_machine_does_not_take_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()

        async def routes() -> list[Any]:
            return [B]

        monkeypatch.setattr(world.registry.node, "routes", routes)
        status, text = await refused(remote.call("own-node", {"target": "1/16"}))
        assert status == Status.FAILED
        assert "another machine" in text

    run(world, test)


def test_it_stays_when_its_certificate_has_ended(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        world.now += 900 * DAY
        assert (await remote.call("own-node", {}))["certified"]

    run(world, test)


def test_the_page_does_not_revoke_it_and_says_when_it_is_lost(tmp_path: Any) -> None:
    async def test(browser: Browser) -> None:
        shown = await browser.get("/nodes/0/16/revoke")
        assert "0/16</span> is the registry&#39;s own node" in shown.text or "is the registry's own node" in shown.text
        assert 'name="confirm"' not in shown.text
        answer = await browser.post("/nodes/0/16/revoke", {"confirm": "0/16"})
        assert answer.status == 409
        assert (await browser.get("/nodes/0/16.json")).status == 200
        assert "All is well." in (await browser.get("/")).text
        await browser.simulation.store.change(lambda ledger: ledger.evict(A, browser.simulation.clock()))
        (problem,) = (await browser.get("/overview.json")).json["problems"]
        assert problem.startswith("The registry's own node 0/16 has no certificate")
        assert "All is well." not in (await browser.get("/")).text

    browse(tmp_path, test)
