"""Operations of the operator: over a real socket, on a real database, and what the socket refuses."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from re6st import cert
from re6st.api.admin import Admin
from re6st.api.admin_socket import CLIENTS_LIMIT, REQUEST_LIMIT, AdminServer, Remote, socket_path
from re6st.api.operations import AdminError, Operations
from re6st.cli.registry.output import revocation, warning
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Code
from re6st.registryd import listings
from re6st.registryd.last_seen import SOFTWARE_LIMIT, software
from re6st.registryd.restored import LOST
from re6st.service.json_lines import Status
from tests.unit.registry_world import DAY, A, B, World
from tests.unit.registryd.test_registry_mesh import mesh

Test = Callable[[World, Operations], Awaitable[None]]


@pytest.fixture
def world(tmp_path: Any, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


@asynccontextmanager
async def serving(world: World, page_limit: int = listings.PAGE_LIMIT) -> AsyncIterator[AdminServer]:
    """The socket of a running registry."""
    admin = Admin(world.registry, page_limit)
    server = AdminServer(admin, socket_path(world.store.path))
    task = asyncio.create_task(server.run())
    try:
        while not socket_path(world.store.path).exists():
            await asyncio.sleep(0.01)
        while True:
            try:
                (await Remote.connect(socket_path(world.store.path))).close()
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(world: World, test: Test, page_limit: int = listings.PAGE_LIMIT) -> None:
    """Run a test with the other end of the socket."""

    async def main(world: World) -> None:
        async with serving(world, page_limit):
            remote = await Remote.connect(socket_path(world.store.path))
            try:
                await test(world, remote)
            finally:
                remote.close()

    world.run(main)


async def refused(call: Awaitable[Any]) -> tuple[Status, str]:
    with pytest.raises(AdminError) as caught:
        await call
    return caught.value.status, str(caught.value)


# --- who was seen ---


def test_a_call_in_a_session_is_seen(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()
        assert [node["seen"] for node in (await remote.call("nodes", {}))["nodes"]] == [None, None]
        ratchet = await world.hello(B)
        path = f"/getNetworkConfig?cn={B.bits}"
        agent = {"Re6stHMAC": ratchet.sign(path.encode()), "User-Agent": "re6stnet/1.5, Linux"}
        head = "".join(f"{name}: {value}\r\n" for name, value in agent.items())
        assert b" 200 " in await world.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        _, node = (await remote.call("nodes", {}))["nodes"]
        assert (node["cn"], node["seen"], node["version"], node["protocol"]) == (
            *("1/16", "2027-06-01T00:00:00Z"),
            *("1.5, Linux", 10),
        )
        world.now += 10 * DAY
        recent = await remote.call("nodes", {"unseen": 20 * 86400})
        assert [node["cn"] for node in recent["nodes"]] == ["0/16"]
        assert len((await remote.call("nodes", {"unseen": 9 * 86400}))["nodes"]) == 2

    run(world, test)


def test_a_stranger_is_not_seen(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.hello(A)
        assert (await world.get(f"/getDh?cn={A.bits}", Re6stHMAC="AAAA")).status == 400
        assert (await remote.call("node", {"target": "0/16"}))["node"]["seen"] is None

    run(world, test)


def test_what_was_seen_goes_with_the_node(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()
        await world.parameters(B)
        assert (await remote.call("node", {"target": "1/16"}))["node"]["seen"]
        await world.parameters(B)  # noted, and not written yet
        await remote.call("revoke", {"target": "1/16"})
        await world.enrol()
        node = (await remote.call("node", {"target": "1/16"}))["node"]
        assert (node["serial"], node["seen"]) == (3, None)

    run(world, test)


def test_what_was_seen_is_kept(world: World) -> None:
    async def first(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.parameters()
        await world.registry.seen.flush()

    async def second(world: World, remote: Operations) -> None:
        assert (await remote.call("node", {"target": "0/16"}))["node"]["seen"] == "2027-06-01T00:00:00Z"

    run(world, first)
    run(world, second)


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("re6stnet/0.615, Linux-6.1", "0.615, Linux-6.1"),
        ("curl/8", ""),
        ("re6stnet/\x1b[31m1", "[31m1"),
        ("re6stnet/" + "x" * 999, "x" * SOFTWARE_LIMIT),
    ],
)
def test_a_user_agent_may_be_anything(agent: str, said: str) -> None:
    assert software(agent) == said


# --- tokens ---


def test_an_invitation_ends_at_its_own_time(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        short = await remote.call("invite", {"email": "a@example.org", "life": 3600, "prefix_length": 20})
        long = await remote.call("invite", {"life": 200 * 86400})
        plain = await remote.call("invite", {})
        assert (short["created"], short["expires"]) == ("2027-06-01T00:00:00Z", "2027-06-01T01:00:00Z")
        assert plain["expires"] == "2027-09-09T00:00:00Z"  # the grace period
        assert (await world.call("isToken", token=short["token"])).body == b"1"
        world.now += 3600
        assert (await world.call("isToken", token=short["token"])).status == 204
        answer = await world.call("requestCertificate", token=short["token"], req=world.request(), location="", ip="")
        assert answer.status == 204
        expired = {token["token"]: token["expired"] for token in (await remote.call("tokens", {}))["tokens"]}
        assert expired == {short["token"]: True, long["token"]: False, plain["token"]: False}
        await world.registry.parameter_service.clean_up()
        assert len((await remote.call("tokens", {}))["tokens"]) == 2
        world.now += 150 * DAY
        await world.registry.parameter_service.clean_up()
        assert [token["token"] for token in (await remote.call("tokens", {}))["tokens"]] == [long["token"]]
        assert cert.prefix_of_cert(await world.enrol(long["token"])).length == 16

    run(world, test)


def test_the_next_clean_up_is_when_an_invitation_ends(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await remote.call("invite", {"life": 3600})
        assert await world.store.read(lambda queries: queries.first_deadline(world.settings.grace)) == world.now + 3600

    run(world, test)


def test_an_invitation_gives_its_prefix_length_once(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        token = (await remote.call("invite", {"email": "a@example.org", "prefix_length": 20}))["token"]
        assert cert.prefix_of_cert(await world.enrol(token)).length == 20
        (node,) = (await remote.call("nodes", {"email": "a@example.org"}))["nodes"]
        assert node["subnet"] == "2001:db8:42::/68"
        answer = await world.call("requestCertificate", token=token, req=world.request(), location="", ip="")
        assert answer.status == 204
        assert (await refused(remote.call("delete-token", {"token": token})))[0] == Status.NOT_FOUND

    run(world, test)


@pytest.mark.parametrize(
    "arguments",
    [{"prefix_length": 79}, {"prefix_length": 81}, {"email": "nobody"}, {"life": 0}, {"life": "7"}, {"other": 1}],
)
def test_an_invitation_that_makes_no_sense(world: World, arguments: dict[str, Any]) -> None:
    async def test(world: World, remote: Operations) -> None:
        assert (await refused(remote.call("invite", arguments)))[0] == Status.USAGE
        assert (await remote.call("tokens", {}))["tokens"] == []

    run(world, test)


# --- nodes ---


def test_lists_come_in_pages(world: World) -> None:
    async def pages(remote: Operations, name: str, key: str) -> list[Any]:
        found: list[Any] = []
        after: str | None = ""
        while after is not None:
            page = await remote.call(name, {"after": after})
            assert len(page[name]) <= 2
            found += [record[key] for record in page[name]]
            after = page["next"]
        return found

    async def test(world: World, remote: Operations) -> None:
        for _ in range(5):
            await world.enrol()
            await remote.call("invite", {})
        assert await pages(remote, "nodes", "cn") == ["0/16", "1/16", "2/16", "3/16", "4/16"]
        assert len(set(await pages(remote, "tokens", "token"))) == 5
        for serial in (1, 3, 5):
            await remote.call("revoke", {"target": str(serial)})
        assert await pages(remote, "revoked", "serial") == [1, 3, 5]

    run(world, test, page_limit=2)


def test_a_replaced_certificate_is_revoked_by_its_serial(world: World) -> None:
    key = cert.new_key()

    async def test(world: World, remote: Operations) -> None:
        for _ in range(2):
            await world.enrol()
        await world.in_session(await world.hello(B), "rekeyCertificate", B, req=world.request(key=key))
        node = (await remote.call("node", {"target": "2"}))["node"]
        assert (node["cn"], node["serial"], node["older_serials"]) == ("1/16", 3, [2])
        assert "has another one by now" in warning(node, "2")
        assert "renews by itself" in warning(node, "3")
        record = await remote.call("revoke", {"target": "2"})
        assert (record["node"]["cn"], record["serial"], record["subnet_kept"]) == ("1/16", 2, True)
        assert revocation(record, argparse.Namespace()).startswith("revoked  1/16, serial 2, ")
        with pytest.raises(AdminError, match="revoked already"):
            await remote.call("revoke", {"target": "2"})
        assert [each["serial"] for each in (await remote.call("revoked", {}))["revoked"]] == [2]

    run(world, test)


def test_a_serial_that_a_restored_registry_has_forgotten_is_revoked(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        with pytest.raises(AdminError, match="no certificate has the serial 7"):
            await remote.call("revoke", {"target": "7"})
        await world.store.change(lambda ledger: ledger.set_config(LOST, "2-100"))
        record = await remote.call("revoke", {"target": "7"})
        assert (record["node"], record["serial"]) == (None, 7)
        assert "not known here" in revocation(record, argparse.Namespace())
        assert await world.store.read(lambda queries: queries.crl()) == [7]

    run(world, test)


def test_a_node_is_found_by_what_is_known_of_it(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()
        for target in ("1/16", "2", "2001:db8:42:1::1", "2001:db8:42:1:2:3:4:5"):
            assert (await remote.call("node", {"target": target}))["node"]["cn"] == "1/16"
        for target in ("2/16", "3", "2001:db8:42:7::1", "2001:db8:43::1", "0" * 18, "alice"):
            assert (await refused(remote.call("node", {"target": target})))[0] == Status.NOT_FOUND
        for target in ("Alice", "2/1", "2001:db8", "", "9" * 30, "1/16\n", ":", "\x00"):
            assert (await refused(remote.call("node", {"target": target})))[0] == Status.USAGE

    run(world, test)


def test_nodes_that_expire_soon(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        world.now += 100 * DAY
        await world.enrol()
        for days, count in ((264, 0), (265, 1), (364, 1), (365, 2)):
            assert len((await remote.call("nodes", {"expiring": days * 86400}))["nodes"]) == count, days

    run(world, test)


def test_revoking_by_cn_and_by_serial(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        for _ in range(3):
            await world.enrol()
        assert (await world.parameters()).crl == frozenset()
        answer = await remote.call("revoke", {"target": "2", "reason": "key lost"})
        assert (answer["subnet_kept"], answer["node"]["cn"], answer["version"]) == (True, "1/16", 2)
        assert (await world.parameters()).crl == {2}
        assert (await refused(remote.call("revoke", {"target": "2"})))[0] == Status.CONFLICT
        # It renews with a new serial; thrown out then, the older one stays on the list.
        renewed = await world.in_session(await world.hello(B), "renewCertificate", B)
        assert cert.load_pem(renewed.body).serial_number == 4
        shown = (await remote.call("node", {"target": "1/16"}))["node"]
        assert (shown["older_serials"], shown["revoked"]) == ([2], False)
        answer = await remote.call("revoke", {"target": "1/16", "reason": "stolen"})
        assert not answer["subnet_kept"]
        listed = (await remote.call("revoked", {}))["revoked"]
        assert [(each["serial"], each["cn"], each["reason"]) for each in listed] == [
            (2, "1/16", "key lost"),
            (4, "1/16", "stolen"),
        ]
        assert listed[0]["revoked"] == "2027-06-01T00:00:00Z"
        assert listed[0]["listed_until"] == "2028-05-31T00:00:00Z"
        assert (await refused(remote.call("revoke", {"target": "1/16"})))[0] == Status.NOT_FOUND
        assert (await world.call("hello", client_prefix=B.bits)).status == 404

    run(world, test)


# --- the network ---


def test_a_rotation_goes_round(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        assert (await refused(remote.call("rotate", {"step": 1})))[0] == Status.FAILED
        await world.enrol()
        states = []
        for _ in range(3):
            step = await remote.call("rotate", {"step": 1, "force": 1})
            assert step["changed"]
            states.append(step["state"])
            assert await remote.call("rotate", {}) == step | {"changed": False}
        assert states == ["phase 1", "phase 2", "stable"]
        await remote.call("rotate", {"step": 1})
        assert (await refused(remote.call("rotate", {"step": 1})))[0] == Status.CONFLICT, "an hour too early"
        world.now += 400 * DAY
        assert (await remote.call("rotate", {"step": 1}))["state"] == "phase 2"
        assert (await world.parameters()).babel_hmac_sign

    run(world, test)


def test_who_keeps_the_hellos_long_and_the_operators_word(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()
        await world.in_session(await world.hello(B, 1), "getDh", B)
        shown = await remote.call("hellos", {})
        assert (shown["hellos"], shown["older_nodes"], shown["short_from"]) == ("long", [B.cn], None)
        status, text = await refused(remote.call("hellos", {"short": 1}))
        assert (status, B.cn in text) == (Status.CONFLICT, True)
        await remote.call("revoke", {"target": B.cn})
        shown = await remote.call("hellos", {})
        assert (shown["hellos"], shown["older_nodes"], shown["changed"]) == ("long", [], False)
        assert shown["short_from"] == "2027-06-02T00:00:00Z"
        short = await remote.call("hellos", {"short": 1})
        assert (short["hellos"], short["changed"], short["version"]) == ("short", True, shown["version"] + 1)

    run(world, test)


def test_who_keeps_the_network_flat_and_the_operators_word(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await world.enrol()
        await world.enrol()
        shown = await remote.call("regions", {})
        assert (shown["wanted"], shown["bits"], shown["from"]) == (0, 0, None)
        service = world.registry.parameter_service
        service._configured = replace(service._configured, regions=14)
        await world.in_session(await world.hello(B, 1), "getDh", B)
        shown = await remote.call("regions", {})
        assert (shown["wanted"], shown["bits"], shown["older_nodes"]) == (14, 0, [B.cn])
        assert (await service.parameters()).regions == 0
        status, text = await refused(remote.call("regions", {"now": 1}))
        assert (status, B.cn in text) == (Status.CONFLICT, True)
        await remote.call("revoke", {"target": B.cn})
        shown = await remote.call("regions", {})
        assert (shown["bits"], shown["older_nodes"], shown["from"] is not None) == (0, [], True)
        now = await remote.call("regions", {"now": 1})
        assert (now["bits"], now["changed"], now["version"]) == (14, True, shown["version"] + 1)
        assert (await service.parameters()).regions == 14

    run(world, test)


def test_parameters_without_keys(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        assert (await refused(remote.call("params", {})))[0] == Status.NOT_FOUND
        await world.enrol()
        shown = await remote.call("params", {})
        assert (shown["version"], shown["registry"], shown["keys"]) == (1, "0/16", "stable")
        assert shown["parameters"]["hello"] == 4
        assert "hmac" not in json.dumps(shown)

    run(world, test)


def test_the_mesh_as_the_node_beside_tells(world: World) -> None:
    answers: dict[tuple[Prefix, int], bytes] = {
        (A, Code.TOPOLOGY): b"1 1/16",
        (B, Code.TOPOLOGY): b"0 0/16",
        (A, Code.SOFTWARE): b"1.0, Linux",
    }

    async def main() -> None:
        async with asyncio.timeout(60), mesh(world, answers, [B]), world.serve(), serving(world):
            await world.enrol()
            await world.enrol()
            remote = await Remote.connect(socket_path(world.store.path))
            assert (await remote.call("topology", {}))["topology"] == [
                {"cn": "0/16", "answered": True, "tunnels_to": ["1/16"]},
                {"cn": "1/16", "answered": True, "tunnels_to": []},
            ]
            assert (await remote.call("versions", {}))["versions"] == [
                {"cn": "0/16", "prefix": A.bits, "version": "1.0, Linux"},
                {"cn": "1/16", "prefix": B.bits, "version": None},
            ]
            remote.close()

    asyncio.run(main())


# --- the socket ---


def test_the_socket_is_for_its_owner(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        assert stat.S_IMODE(socket_path(world.store.path).stat().st_mode) == 0o600

    run(world, test)
    assert not socket_path(world.store.path).exists()


def test_a_socket_that_was_left_is_replaced(world: World) -> None:
    path = socket_path(world.directory / "registry.db")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def test(world: World, remote: Operations) -> None:
        assert (await remote.call("nodes", {}))["nodes"] == []

    run(world, test)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"hello\n", 2),
        (b"[]\n", 2),
        (b"null\n", 2),
        (b"\xff\n", 2),
        (b"[" * 60000 + b"\n", 2),
        (b'{"protocol": 1, "operation": 1, "arguments": {}}\n', 2),
        (b'{"protocol": 1, "operation": "nodes", "arguments": []}\n', 2),
        (b'{"protocol": 1, "operation": "drop", "arguments": {}}\n', 2),
        (b'{"protocol": 1, "operation": "nodes", "arguments": {"after": 1}}\n', 2),
        (b'{"protocol": 1, "operation": "nodes", "arguments": {"expiring": true}}\n', 2),
        (b'{"protocol": 1, "operation": "revoked", "arguments": {"after": "x"}}\n', 2),
        (b'{"protocol": 2, "operation": "nodes", "arguments": {}}\n', 1),
        (b"x" * (REQUEST_LIMIT + 2) + b"\n", 2),
    ],
)
def test_a_request_that_is_none_is_refused(world: World, line: bytes, status: int) -> None:
    async def test(world: World, remote: Operations) -> None:
        reader, writer = await asyncio.open_unix_connection(str(socket_path(world.store.path)))
        writer.write(line)
        answer = json.loads(await reader.readline())
        assert answer["protocol"] == 1
        assert answer["error"]["status"] == status
        writer.close()
        assert (await remote.call("nodes", {}))["nodes"] == []

    run(world, test)


def test_clients_are_few(world: World) -> None:
    async def test(world: World, remote: Operations) -> None:
        await remote.call("nodes", {})
        path = str(socket_path(world.store.path))
        others = [await asyncio.open_unix_connection(path) for _ in range(CLIENTS_LIMIT)]
        answer = json.loads(await others[-1][0].readline())
        assert answer["error"]["status"] == 1
        for _, writer in others:
            writer.close()
        assert (await remote.call("nodes", {}))["nodes"] == []

    run(world, test)
