"""A client tunnel before an OpenVPN that a test plays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from re6st.core.wire.datagrams import Endpoint
from re6st.transport import openvpn_client
from re6st.transport.openvpn_client import OpenVpnClient
from re6st.tunnel import Connected, FoundClient
from tests.unit.fake_program import FakeChild, FakePrograms, all_gone, install, until
from tests.unit.openvpn_play import ONE, TWO, A, Peer, made, played, resumed


def connect(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    parts: list[Callable[[Peer], Awaitable[None]] | int],
    endpoints: list[Endpoint],
    times: dict[str, float] | None = None,
) -> tuple[bool, list[Connected], FakePrograms]:
    """Run a client tunnel before these plays to its end."""
    for name, value in ({"CONNECT_TIME": 0.3, "SILENT_TIME": 0.3, "STAGGER": 5.0} | (times or {})).items():
        monkeypatch.setattr(openvpn_client, name, value)
    programs = install(monkeypatch, "--management", *(p if isinstance(p, int) else played(p) for p in parts))
    told: list[Connected] = []

    async def connected(event: Connected) -> None:
        told.append(event)

    async def run() -> bool:
        async with asyncio.timeout(20):
            worked = await OpenVpnClient(made(tmp_path), "re6stnet1", A, endpoints, connected).run()
        await all_gone(programs)
        return worked

    worked = asyncio.run(run())
    return worked, told, programs


async def comes_up(peer: Peer) -> None:
    peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
    peer.block("UPDOWN", "UP", tls_serial_0=5, OPENVPN_external_ip="203.0.113.9", tun_mtu=1348)


async def never(peer: Peer) -> None:
    peer.say(">STATE:1,WAIT,,,,,,")
    await peer.closes()


def test_a_client_tunnel_lives_and_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worked, told, programs = connect(monkeypatch, tmp_path, [comes_up], [ONE, TWO])
    assert worked
    assert told == [Connected(A, ONE, "re6stnet1", 5, "203.0.113.9", 1348)]
    assert len(programs.started) == 1, "one that worked is not tried at its other addresses when it ends"


def test_where_a_name_led_is_known_by_its_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of --client are not looked up here; a WireGuard link is dialled at the address of its tunnel."""

    async def comes_up_there(peer: Peer) -> None:
        peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
        peer.block("UPDOWN", "UP", tls_serial_0=5, trusted_ip="192.0.2.2", tun_mtu=1348)

    for endpoint in (replace(ONE, host="re6st.example.com"), ONE):
        _, told, _ = connect(monkeypatch, tmp_path, [comes_up_there], [endpoint])
        there = "192.0.2.2" if endpoint != ONE else ONE.host
        assert [event.endpoint for event in told] == [replace(endpoint, host=there)]


def test_the_next_address_is_tried_when_one_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worked, told, programs = connect(monkeypatch, tmp_path, [1, never, comes_up], [ONE, ONE, TWO])
    assert worked
    assert [event.endpoint for event in told] == [TWO]
    assert [child.argv[child.argv.index("--remote") + 1] for child in programs.started] == [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
    ]
    assert "exit status 1: Options error: no good" in caplog.text
    assert "not connected in time" in caplog.text


def test_a_silent_address_is_overtaken_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    times = {"STAGGER": 0.05, "SILENT_TIME": 5.0}
    worked, told, programs = connect(monkeypatch, tmp_path, [never, never, comes_up], [ONE, TWO, ONE, TWO], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]
    assert len(programs.started) == 3, "nothing is tried once one is up"
    sockets = {child.argv[child.argv.index("--management") + 1] for child in programs.started}
    assert len(sockets) == 3, "they run beside each other"
    assert {child.argv[child.argv.index("--dev") + 1] for child in programs.started} == {"re6stnet1"}


def test_an_earlier_address_that_is_slow_may_still_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        await comes_up(peer)

    times = {"STAGGER": 0.05, "SILENT_TIME": 5.0}
    worked, told, _ = connect(monkeypatch, tmp_path, [slow, never], [ONE, TWO], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]


def test_an_address_that_answers_is_given_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def answers(peer: Peer) -> None:
        peer.say(">STATE:1,AUTH,,,,,,")
        await asyncio.sleep(0.4)
        await comes_up(peer)

    times = {"STAGGER": 0.1, "SILENT_TIME": 0.2, "CONNECT_TIME": 5.0}
    worked, told, programs = connect(monkeypatch, tmp_path, [answers], [ONE, TWO], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]
    assert len(programs.started) == 1


def test_a_server_whose_answer_has_no_end_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It can say for ever that more of its options come (push-continuation): that is not to be connected."""

    async def without_end(peer: Peer) -> None:
        while True:
            for state in ("AUTH", "GET_CONFIG"):
                peer.say(f">STATE:1,{state},,,,,,")
            await asyncio.sleep(0.01)

    worked, told, _ = connect(monkeypatch, tmp_path, [without_end], [ONE])
    assert (worked, told) == (False, [])


def test_an_address_that_refuses_makes_place_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def refuses(peer: Peer) -> None:
        peer.say(">STATE:1,RECONNECTING,connection-refused,,,,,")
        await peer.closes()

    times = {"STAGGER": 60.0, "SILENT_TIME": 60.0, "CONNECT_TIME": 60.0}
    worked, told, _ = connect(monkeypatch, tmp_path, [refuses, refuses, comes_up], [ONE, TWO, ONE], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]


def test_what_fails_once_the_tunnel_is_up_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = install(monkeypatch, "--management", played(comes_up))

    async def connected(_event: Connected) -> None:
        raise LookupError("no such interface")

    async def run() -> None:
        with pytest.raises(LookupError, match="no such interface"):
            await OpenVpnClient(made(tmp_path), "re6stnet1", A, [ONE, TWO], connected).run()
        await all_gone(programs)

    asyncio.run(run())


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worked, told, _ = connect(monkeypatch, tmp_path, [never], [ONE])
    assert (worked, told) == (False, [])
    assert connect(monkeypatch, tmp_path, [never], [])[0] is False


def test_a_tunnel_that_is_up_is_not_ended_by_the_time_to_connect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def part(peer: Peer) -> None:
        await comes_up(peer)
        await asyncio.sleep(0.6)
        peer.say(">STATE:1,RECONNECTING,ping-restart,,,,,")
        await asyncio.sleep(0.1)
        peer.say("x" * 200_000, ">STATE:1,EXITING,SIGTERM,,,,,")

    worked, told, _ = connect(monkeypatch, tmp_path, [part], [ONE])
    assert (worked, len(told)) == (True, 1)


@pytest.mark.parametrize("mtu", ["", "abc", "-1", "100", "²", "9" * 4000, None])
def test_an_mtu_that_makes_no_sense_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mtu: str) -> None:
    async def part(peer: Peer) -> None:
        peer.block("UPDOWN", "UP", tls_serial_0=5, **({"tun_mtu": mtu} if mtu is not None else {}))

    worked, told, _ = connect(monkeypatch, tmp_path, [part], [ONE])
    assert worked
    assert told[0].mtu in (1500, 9000)


def test_a_server_that_hides_its_certificate_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def part(peer: Peer) -> None:
        peer.block("UPDOWN", "UP", tun_mtu=1500)
        await peer.closes()

    worked, told, _ = connect(monkeypatch, tmp_path, [part], [ONE])
    assert not worked
    assert not told
    assert "does not tell the serial number" in caplog.text


def test_cancelling_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = install(monkeypatch, "--management", played(never))

    async def run() -> None:
        async def connected(_event: Connected) -> None: ...

        task = asyncio.create_task(OpenVpnClient(made(tmp_path), "re6stnet1", A, [ONE], connected).run())
        await until(lambda: programs.started)
        task.cancel()
        await asyncio.wait([task])
        assert programs.started[0].stopped
        await all_gone(programs)

    asyncio.run(run())


def test_a_leftover_socket_is_no_hindrance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = replace(made(tmp_path), log=tmp_path)
    settings.management("re6stnet1").touch()
    settings.output("re6stnet1").write_text("earlier\n")
    assert connect(monkeypatch, tmp_path, [comes_up], [ONE])[0]
    assert settings.output("re6stnet1").read_text() == "earlier\n", "a log of the user's is kept"


@pytest.mark.parametrize("alive", [True, False])
def test_a_client_tunnel_is_gone_on_with_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alive: bool
) -> None:
    programs = install(monkeypatch, "--management", 1)
    told: list[Connected] = []

    async def part(peer: Peer) -> None:
        peer.say(">BYTECOUNT:5,6")

    async def up(connected: Connected) -> None:
        told.append(connected)

    async def run() -> None:
        programs.found[7] = child = FakeChild([])
        if alive:
            await child.listen(str(tmp_path / "re6stnet1.2.sock"), resumed(part))
        else:
            child.end(0)
        connected = Connected(A, TWO, "re6stnet1", 12, None, 1400)
        found = FoundClient(7, "re6stnet1.2", 1.5, connected)
        client = OpenVpnClient(made(tmp_path), "re6stnet1", A, [TWO], up, found)
        assert await client.run()
        assert told == [connected] * alive
        assert (client.since, client.serial, client.endpoint, client.process) == (1.5, 12, TWO, (7, "re6stnet1.2"))
        assert (client.traffic is not None) == alive
        await all_gone(programs)

    asyncio.run(run())
