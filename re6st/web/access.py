"""Who may see the operator's page, and from where a form may come.

This machine and the authorized origins need no login, as for the registry's restricted calls (wire.md 3.2), if they
call the page by an IP address or as localhost: a name proves nothing, since somebody else's DNS may point it here. A
request on a unix socket was passed on by a web server, so it needs no login only if X-Forwarded-For is an authorized
origin. Everybody else needs a login: on the registry's machine, the operator makes a link for one use, which begins a
session of some hours.

Every visitor has a cookie, and a request that changes something contains a token that belongs to the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from re6st.core.registry.origins import Origins, is_plain_host, network_of

COOKIE = "re6st"
COOKIE_LIMIT = 64
"""Characters of a cookie's value that are read."""
LINK_LIFE = 600.0
"""Seconds for which a login link is valid, for one use."""
LINKS_LIMIT = 16
SESSION_LIFE = 12 * 3600.0
SESSION_IDLE = 2 * 3600.0
SESSIONS_LIMIT = 64
UNIX_PEER = "a unix socket"
"""Used instead of an address: a web server passes on requests from anywhere."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A visitor who may see the page. `cookie` is the value that the visitor has, or is to get."""

    cookie: str
    is_new: bool
    logged_in: bool
    form_token: str
    """The token that each form must contain."""


@dataclass(slots=True)
class _PageSession:
    began: float
    used: float


class PageAccess:
    """`clock` gives monotonic seconds."""

    def __init__(self, origins: Origins, clock: Callable[[], float], *, always_login: bool = False) -> None:
        """With `always_login`, this machine and the authorized origins have to log in, too."""
        self._origins = origins
        self._clock = clock
        self._always_login = always_login
        self._key = secrets.token_bytes(32)
        self._links: dict[bytes, float] = {}
        self._sessions: dict[bytes, _PageSession] = {}

    # --- logging in ---

    def new_link(self) -> str:
        """The secret of a new login link. Only the newest links are valid."""
        secret = secrets.token_urlsafe(24)
        self._links[_digest(secret)] = self._clock() + LINK_LIFE
        while len(self._links) > LINKS_LIMIT:
            del self._links[next(iter(self._links))]
        return secret

    def log_in(self, secret: str) -> str | None:
        """The cookie of a new session; None if the link was used, is too old, or unknown."""
        until = self._links.pop(_digest(secret), None)
        now = self._clock()
        if until is None or now > until:
            return None
        cookie = secrets.token_urlsafe(24)
        while len(self._sessions) >= SESSIONS_LIMIT:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used)]
        self._sessions[_digest(cookie)] = _PageSession(now, now)
        return cookie

    def log_out(self, cookie: str) -> None:
        self._sessions.pop(_digest(cookie), None)

    # --- coming in ---

    def visitor(
        self, peer: str, forwarded: Sequence[str], host: str, cookie: str, *, careless: bool = False
    ) -> Visitor | None:
        """The visitor; None if a login is needed.

        `peer` is the address of the other end, or UNIX_PEER; `forwarded` are the values of X-Forwarded-For, `host` is
        the header Host; `careless`: it came through a proxy that does not say from whom.
        """
        cookie = cookie[:COOKIE_LIMIT]
        logged_in = self._in_session(cookie)
        if not logged_in and (self._always_login or careless or not self._is_trusted(peer, forwarded, host)):
            return None
        is_new = not cookie
        cookie = cookie or secrets.token_urlsafe(24)
        return Visitor(cookie, is_new, logged_in, self._form_token(cookie))

    def _is_trusted(self, peer: str, forwarded: Sequence[str], host: str) -> bool:
        if not is_plain_host(host):
            return False
        if peer == UNIX_PEER:
            return self._origins.authorized_by_proxy(forwarded)
        return self._origins.authorized(peer, forwarded)

    def source(self, peer: str, forwarded: Sequence[str]) -> str:
        """The network as which a visitor counts for limits."""
        client = self._origins.client("127.0.0.1" if peer == UNIX_PEER else peer, forwarded)
        return network_of(peer if client is None else client)

    def _in_session(self, cookie: str) -> bool:
        key = _digest(cookie)
        session = self._sessions.get(key)
        now = self._clock()
        if session is None:
            return False
        if now > session.began + SESSION_LIFE or now > session.used + SESSION_IDLE:
            del self._sessions[key]
            return False
        session.used = now
        return True

    def _form_token(self, cookie: str) -> str:
        return hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest()


def is_ours(visitor: Visitor, form_token: str) -> bool:
    """Whether a page of ours made this form, for this visitor."""
    return hmac.compare_digest(visitor.form_token.encode(), form_token.encode("utf-8", "replace"))


def is_same_origin(host: str, origin: str | None, fetch_site: str | None) -> bool:
    """Whether the browser says, if it says anything, that a form comes from our own pages.

    `origin` and `fetch_site` are the headers Origin and Sec-Fetch-Site.
    """
    if fetch_site not in (None, "same-origin", "none"):
        return False
    try:
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False


def _digest(secret: str) -> bytes:
    """Secrets are looked up by their hash, so that the time this takes tells nothing about them."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
