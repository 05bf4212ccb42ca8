"""Who may see the operator's page, for how long, and from where a form may come."""

from __future__ import annotations

import pytest

from re6st.core.registry.origins import Origins, is_plain_host
from re6st.web.access import (
    LINK_LIFE,
    LINKS_LIMIT,
    SESSION_IDLE,
    SESSION_LIFE,
    SESSIONS_LIMIT,
    UNIX_PEER,
    PageAccess,
    is_ours,
    is_same_origin,
)

HOST = "127.0.0.1:8326"
STRANGER = "203.0.113.5"


class Door:
    """A `PageAccess` with a clock of its own."""

    def __init__(self, *, always_login: bool = False, origins: tuple[str, ...] = ("198.51.100.7",)) -> None:
        self.now = 1000.0
        self.access = PageAccess(Origins(origins), lambda: self.now, always_login=always_login)

    def lets_in(self, peer: str, *forwarded: str, host: str = HOST, cookie: str = "") -> bool:
        return self.access.visitor(peer, forwarded, host, cookie) is not None

    def log_in(self) -> str:
        cookie = self.access.log_in(self.access.new_link())
        assert cookie
        return cookie


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "198.51.100.7"])
def test_this_machine_and_authorized_origins_come_in(peer: str) -> None:
    assert Door().lets_in(peer)


@pytest.mark.parametrize(
    ("peer", "forwarded"),
    [
        (STRANGER, ()),
        ("127.0.0.1", (STRANGER,)),
        ("127.0.0.1", ("127.0.0.1", STRANGER)),
        ("127.0.0.1", (f"127.0.0.1, {STRANGER}",)),
        ("127.0.0.1", (f"{STRANGER}, 127.0.0.1",)),
        (STRANGER, ("127.0.0.1",)),
        ("", ()),
    ],
)
def test_others_do_not(peer: str, forwarded: tuple[str, ...]) -> None:
    assert not Door().lets_in(peer, *forwarded)


@pytest.mark.parametrize("forwarded", [(), ("127.0.0.1",), ("::1",), (STRANGER,), ("198.51.100.7", STRANGER), ("",)])
def test_who_comes_by_a_web_server_on_a_unix_socket_logs_in(forwarded: tuple[str, ...]) -> None:
    """It may pass on what the client claims, and claims to be localhost."""
    assert not Door().lets_in(UNIX_PEER, *forwarded, host="localhost")


def test_an_authorized_origin_behind_a_web_server_comes_in() -> None:
    assert Door().lets_in(UNIX_PEER, "198.51.100.7", host="localhost")


def test_what_a_careless_proxy_passes_on_is_a_strangers() -> None:
    assert Door().access.visitor("127.0.0.1", (), HOST, "", careless=True) is None


@pytest.mark.parametrize("host", ["evil.example:8326", "127.0.0.1.evil.example", "", "[", "localhost.evil.example"])
def test_a_name_that_a_stranger_may_point_here_proves_nothing(host: str) -> None:
    assert not is_plain_host(host)
    assert not Door().lets_in("127.0.0.1", host=host)


@pytest.mark.parametrize("host", ["localhost", "localhost:8326", "[::1]:8326", "192.0.2.1", "re6st.localhost:80"])
def test_names_that_nobody_else_points_here(host: str) -> None:
    assert is_plain_host(host)


def test_everybody_logs_in_where_that_is_wanted() -> None:
    door = Door(always_login=True)
    assert not door.lets_in("127.0.0.1")
    assert door.lets_in("127.0.0.1", cookie=door.log_in())


def test_a_login_lets_a_stranger_in_by_any_name() -> None:
    door = Door()
    cookie = door.log_in()
    assert door.lets_in(STRANGER, host="re6st.example.org", cookie=cookie)
    assert not door.lets_in(STRANGER, cookie=cookie + "x")
    door.access.log_out(cookie)
    assert not door.lets_in(STRANGER, cookie=cookie)


def test_a_link_is_good_once_and_not_for_long() -> None:
    door = Door()
    link = door.access.new_link()
    assert door.access.log_in(link)
    assert door.access.log_in(link) is None
    late = door.access.new_link()
    door.now += LINK_LIFE + 1
    assert door.access.log_in(late) is None
    assert door.access.log_in("") is None
    assert door.access.log_in("é\udcff") is None


def test_links_and_sessions_are_bounded() -> None:
    door = Door()
    links = [door.access.new_link() for _ in range(LINKS_LIMIT + 1)]
    assert door.access.log_in(links[0]) is None
    assert door.access.log_in(links[1])
    cookies = []
    for _ in range(SESSIONS_LIMIT + 1):
        door.now += 1
        cookies.append(door.log_in())
    assert not door.lets_in(STRANGER, cookie=cookies[0])
    assert door.lets_in(STRANGER, cookie=cookies[1])


def test_sessions_end() -> None:
    door = Door()
    idle = door.log_in()
    door.now += SESSION_IDLE + 1
    assert not door.lets_in(STRANGER, cookie=idle)
    busy = door.log_in()
    for _ in range(int(SESSION_LIFE / SESSION_IDLE * 2) - 1):
        door.now += SESSION_IDLE / 2
        assert door.lets_in(STRANGER, cookie=busy)
    door.now += SESSION_IDLE / 2 + 1
    assert not door.lets_in(STRANGER, cookie=busy)


def test_a_form_belongs_to_its_visitor() -> None:
    door = Door()
    one = door.access.visitor("127.0.0.1", (), HOST, "")
    assert one
    assert one.is_new
    same = door.access.visitor("127.0.0.1", (), HOST, one.cookie)
    other = door.access.visitor("127.0.0.1", (), HOST, "another")
    assert same
    assert other
    assert is_ours(same, one.form_token)
    assert not is_ours(other, one.form_token)
    assert not is_ours(same, "")
    assert not is_ours(same, "é\udcff")


@pytest.mark.parametrize(
    ("origin", "site", "good"),
    [
        (f"http://{HOST}", "same-origin", True),
        (f"http://{HOST}", None, True),
        (None, None, True),
        (None, "none", True),
        ("http://127.0.0.1:9999", "same-site", False),
        ("http://127.0.0.1:9999", None, False),
        ("http://evil.example", "cross-site", False),
        (None, "cross-site", False),
        ("null", None, False),
        ("", None, False),
        ("http://[", None, False),
    ],
)
def test_where_a_form_comes_from(origin: str | None, site: str | None, good: bool) -> None:
    assert is_same_origin(HOST, origin, site) == good
