"""Who may call the operator's methods over HTTP: not what pages make a browser send, nor what a proxy passes on."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from re6st import cert
from re6st.cli.registry import operator_port
from re6st.cli.registry.operator_port import SAME_PORT, OperatorPlace, operator_place
from re6st.core.wire.rpc import METHODS, Access, target
from tests.unit.registry_world import World, parse

RESTRICTED = [name for name, method in METHODS.items() if method.access is Access.RESTRICTED]
STRANGER = "198.51.100.66"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
APACHE = {"X_Forwarded_Host": "registry.example.org", "X_Forwarded_Server": "registry.example.org"}
"""What Apache's mod_proxy adds beside X-Forwarded-For."""


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


async def status(world: World, name: str, host: str = "", **headers: str) -> int:
    path = target(name, dict.fromkeys(METHODS[name].parameters, "x"))
    lines = "".join(f"{header.replace('_', '-')}: {value}\r\n" for header, value in headers.items())
    host = host or f"127.0.0.1:{world.port}"
    return parse(await world.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())).status


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Referer": "http://evil.example/page"},
        {"Referer": "http://["},
    ],
)
def test_a_page_of_another_site_makes_a_browser_call_nothing(world: World, headers: dict[str, str]) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        for name in METHODS.keys() - {"getCa"}:
            assert await status(world, name, User_Agent=BROWSER, **headers) in (400, 403), name
        for name in [*RESTRICTED, "requestToken", "requestCertificate", "hello"]:
            assert await status(world, name, User_Agent=BROWSER, **headers) == 403, name
        assert await status(world, "getCa", User_Agent=BROWSER, **headers) == 200, "a link to it is harmless"
        assert await world.store.read(lambda queries: queries.token("x")) is None

    world.run(test)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_name_that_a_stranger_points_here_lets_nobody_call_as_the_operator(world: World, host: str) -> None:
    async def test(world: World) -> None:
        for name in RESTRICTED:
            assert await status(world, name, host=host) == 403, name
        assert await status(world, "getCa", host=host) == 200

    world.run(test)


def test_a_browser_that_does_not_say_for_which_page_is_not_the_operator(world: World) -> None:
    async def test(world: World) -> None:
        assert await status(world, "isToken", User_Agent=BROWSER) == 403
        assert await status(world, "isToken", User_Agent=BROWSER, Sec_Fetch_Site="none") == 204, "typed by hand"

    world.run(test)


def test_operators_programs_call_as_before(world: World) -> None:
    world.names = ("registry.example.org",)

    async def test(world: World) -> None:
        for host in ("127.0.0.1:80", "localhost", "[::1]:8080", "registry.example.org", "Registry.example.org:80"):
            assert await status(world, "isToken", host=host, User_Agent="curl/8.5.0", Accept="*/*") == 204, host
        assert await status(world, "isToken", User_Agent="python-requests/2.31.0") == 204

    world.run(test)


@pytest.mark.parametrize(
    "headers", [{"Via": "1.1 proxy"}, {"X_Real_IP": STRANGER}, {"Forwarded": f"for={STRANGER}"}, APACHE]
)
def test_a_proxy_that_does_not_say_for_whom_makes_nobody_the_operator(world: World, headers: dict[str, str]) -> None:
    async def test(world: World) -> None:
        for name in RESTRICTED:
            assert await status(world, name, **headers) == 403, name
        assert await status(world, "getCa", **headers) == 200

    world.run(test)


@pytest.mark.parametrize("host", ["198.51.100.7:8080", "[2001:db8::7]:8080", "203.0.113.1"])
def test_who_comes_by_a_relay_of_tcp_and_does_not_hide_it_is_no_operator(world: World, host: str) -> None:
    """As `socat TCP-LISTEN:8080,fork TCP:127.0.0.1:80` on this machine."""

    async def test(world: World) -> None:
        for name in RESTRICTED:
            assert await status(world, name, host=host) == 403, name
        assert await status(world, "getCa", host=host) == 200

    world.run(test)


def test_what_comes_by_http_1_0_is_taken_for_a_proxys(world: World) -> None:
    """nginx asks so, if it is told nothing else, and sends no X-Forwarded-For."""

    async def test(world: World) -> None:
        answer = await world.raw(b"GET /isToken?token=x HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert parse(answer).status == 403
        assert parse(await world.raw(b"GET /getCa HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")).status == 200

    world.run(test)


def test_with_a_port_of_their_own_operators_call_nothing_on_that_for_all(world: World) -> None:
    world.operators = False
    world.origins = ("192.0.2.1",)

    async def test(world: World) -> None:
        for name in RESTRICTED:
            for claimed in ({}, {"X_Forwarded_For": "127.0.0.1"}, {"X_Forwarded_For": "192.0.2.1"}):
                assert await status(world, name, **claimed) == 403, name
        assert await status(world, "getCa") == 200

    world.run(test)


def test_slapos_calls_as_it_does(world: World) -> None:
    """Its recipe calls by the address of the registry, which is an authorized origin; nodes come through Apache."""
    world.origins = ("127.0.0.1",)

    async def test(world: World) -> None:
        token = {"email": "softinst-58770@slapos", "token": "1abcdefghijklmnopqrst"}
        assert (await world.get(target("addToken", token), Accept_Encoding="identity")).status == 204
        assert (await world.get(target("addToken", token), Accept_Encoding="identity")).status == 409
        assert (await world.get(target("isToken", {"token": token["token"]}))).body == b"1"
        through = {"X_Forwarded_For": STRANGER, **APACHE}
        assert await status(world, "getCa", **through) == 200
        assert await status(world, "revoke", **through) == 403
        enrol = target("requestCertificate", {"token": token["token"], "req": world.request(), "location": ""})
        assert (await world.get(enrol, **through)).status == 200
        for name in ("getNodePrefix", "getIPv6Address"):
            assert (await world.get(target(name, {"email": token["email"]}))).status == 200, name
        answer = await world.get(target("revoke", {"cn_or_serial": "0/16"}))
        assert answer.status == 409, "the registry's own node stays"
        assert (await world.enrol("")).serial_number == 2
        answer = await world.get(target("revoke", {"cn_or_serial": "1/16"}))
        assert answer.status == 204

    world.run(test)


# --- the option ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [("off", "off"), ("8327", "127.0.0.1:8327"), ("[::1]:8327", "[::1]:8327"), ("10.0.0.1:1", "10.0.0.1:1")],
)
def test_where_operators_call(text: str, shown: str) -> None:
    place = operator_place(text)
    assert (str(place), place.with_others) == (shown, False)


@pytest.mark.parametrize("text", ["", "0", "/run/x.sock", "nowhere:80"])
def test_no_place(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        operator_place(text)


@pytest.mark.parametrize(
    ("place", "likely"),
    [
        (("0.0.0.0", "::", 80, None), False),
        (("0.0.0.0", "::", 80, "http://registry.example.org/"), False),
        (("10.0.0.1", "", 9201, None), False),
        (("127.0.0.1", "", 80, None), True),
        (("127.0.0.1", "::1", 80, None), True),
        (("0.0.0.0", "::", 80, "https://registry.example.org/"), True),
        (("0.0.0.0", "::", 8080, "http://registry.example.org/"), True),
    ],
)
def test_a_likely_proxy_is_warned_of(place: tuple[str, str, int, str | None], likely: bool) -> None:
    assert any("--operator-port off" in text for text in operator_port.warnings(*place, SAME_PORT)) == likely
    assert not list(operator_port.warnings(*place, OperatorPlace(False)))
