"""What the registry keeps in order beside its calls: the network's parameters and their version, old rows.

The version counts what nodes must learn (wire.md 5.2); the parameters are kept ready for who asks, and the node next to
us is told of each change.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from re6st import cert
from re6st.core.limits.rate import RateLimit
from re6st.core.prefix import Prefix
from re6st.core.registry import hello_choice
from re6st.core.registry.clock import Clock, ClockError, Marks, first_marks
from re6st.core.registry.hello_choice import Hellos
from re6st.core.routing.babel_keys import next_state
from re6st.core.telemetry.expiry import AUTHORITY, Expiry
from re6st.core.wire.extensions import Extension
from re6st.core.wire.params import (
    BABEL_HELLO,
    KEY_LENGTH,
    Encoder,
    Parameters,
    make_version,
    version_number,
)
from re6st.keys import pki
from re6st.registryd.mesh_view import MeshView
from re6st.registryd.sqlite.ledger import Conflict, Ledger, NotFound, Rows
from re6st.registryd.sqlite.store import Store, StoreError

logger = logging.getLogger("registry")

FLOOR = "re6st_floor"
"""Our own row of `config`: a number of the version that nodes are known to have (restored.py)."""
HELLOS = "re6st_hellos"
"""Another: which hellos the network has, as core/registry/hello_choice.py has it."""
MEMBER_VERSIONS_PER_SECOND, MEMBER_VERSIONS = 1 / 60, 10
"""Versions that members may cause, all together: this many, then one a minute."""
CLEAN_UP_INTERVAL = 3600.0
RETRY_INTERVAL = 60.0
NAMES_SHOWN = 10


class Upkeep:
    def __init__(
        self,
        authority: cert.Authority,
        store: Store,
        parameters: Parameters,
        grace: int,
        mesh: MeshView,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`parameters` has the part that the command line sets; `grace` in seconds; `wall` gives Unix time.

        Raises StoreError.
        """
        self._authority = authority
        self._store = store
        self._configured = parameters
        self._grace = grace
        self._mesh = mesh
        self._wall = wall
        self._monotonic = monotonic
        self._expiry = Expiry()
        try:
            kept, newest = store.rows.marks(), store.rows.newest_issue()
        except sqlite3.Error as error:
            raise StoreError(f"database: {error}") from None
        self._clock = Clock(first_marks(kept, newest, wall()), monotonic())
        self._member_versions = RateLimit(MEMBER_VERSIONS_PER_SECOND, MEMBER_VERSIONS)
        self._complaint = ""
        self._current: Parameters | None = None
        self._encoder: Encoder | None = None

    @property
    def parameters(self) -> Parameters:
        """Raises NotFound before the first certificate, StoreError."""
        if self._current is None:
            self.load()  # it failed before, or there was nothing
        if self._current is None:
            raise NotFound("no certificate was issued yet, so there is no network")
        return self._current

    @property
    def encoder(self) -> Encoder:
        """Encodes the parameters. Raises NotFound before the first certificate, StoreError."""
        if self._encoder is None:
            self._encoder = Encoder(self.parameters)
        return self._encoder

    # --- time ---

    def now(self) -> float:
        """Unix time, to date something by. Raises ClockError when the clock is wrong."""
        try:
            self._clock.advance(self._wall(), self._monotonic())
        except ClockError as error:
            if not self._complaint:
                self._complaint = (
                    f"{error}: no certificates and tokens are given, and none dropped, until it is set."
                    " If it is right, start once with --trust-clock."
                )
                logger.error("%s", self._complaint)
            raise
        if self._complaint:
            self._complaint = ""
            logger.warning("the clock is plausible again: certificates are given")
        return self._wall()

    def trusted_now(self) -> float:
        """Unix time that has surely come: what ended before has ended."""
        with suppress(ClockError):
            self.now()
        return self._clock.trusted

    def trust_clock(self) -> None:
        """The operator says that the clock is right."""
        self._clock = Clock(Marks(self._wall(), self._wall()), self._monotonic())

    # --- life ---

    async def start(self) -> None:
        """Clean up, and see what changed since the last run. Raises StoreError."""
        now = self.trusted_now()

        def job(ledger: Ledger) -> None:
            self._clean_up(ledger, now)
            if ledger.registry_prefix() is None:
                ledger.set_config("babel_hmac0", secrets.token_bytes(KEY_LENGTH))
            self.update_version(ledger)

        await self._store.call(job)
        self.changed()

    async def run(self) -> None:
        """Clean up when it is due, and say that the CA's certificate nears its end, for ever."""
        while True:
            end = pki.end_of(self._authority.trust.ca).timestamp()
            if notice := self._expiry.notice(AUTHORITY, end, self.trusted_now()):
                logger.log(logging.ERROR if notice.serious else logging.WARNING, "%s", notice.text)
            try:
                deadline = self._store.rows.first_deadline(self._grace)
                delay = CLEAN_UP_INTERVAL if deadline is None else deadline - self.trusted_now()
                await asyncio.sleep(min(max(delay, 1.0), CLEAN_UP_INTERVAL))
                await self.clean_up()
            except (StoreError, sqlite3.Error) as error:
                logger.error("clean-up: %s", error)
                await asyncio.sleep(RETRY_INTERVAL)

    async def clean_up(self) -> None:
        """Drop what ended long ago. Raises StoreError."""
        now = self.trusted_now()

        def job(ledger: Ledger) -> bool:
            return self._clean_up(ledger, now) and self.update_version(ledger)

        if await self._store.call(job):
            self.changed()

    async def stop(self) -> None:
        """Remember which time it is."""
        self.trusted_now()
        try:
            await self._store.call(lambda ledger: ledger.set_marks(self._clock.marks))
        except StoreError as error:
            logger.error("%s", error)

    def _clean_up(self, ledger: Ledger, now: float) -> bool:
        ledger.set_marks(self._clock.marks)
        return ledger.clean_up(now, self._grace)

    # --- parameters ---

    async def rotate_keys(self) -> None:
        """The next state of the babel keys (wire.md 5.4). Raises ClockError, StoreError."""
        now = self.now()

        def job(ledger: Ledger) -> None:
            new = secrets.token_bytes(KEY_LENGTH)
            ledger.set_babel_state(next_state(ledger.babel_state(), new, now, ledger.count()))
            self.update_version(ledger, always=True)

        await self._store.call(job)
        self.changed()

    async def review(self) -> None:
        """See whether the nodes that were seen call for other parameters. Raises StoreError."""
        self.trusted_now()
        if await self._store.call(self.update_version):
            self.changed()

    def hellos(self) -> Hellos:
        """Which hellos the network has. Raises sqlite3.Error."""
        return _hellos(self._store.rows)

    def older_nodes(self) -> list[Prefix]:
        """The nodes that need long hellos. Raises sqlite3.Error."""
        return _older_nodes(self._store.rows)

    async def shorten_hellos(self) -> bool:
        """The operator says that no older node is left; whether that changed anything. Raises Conflict, StoreError."""

        def job(ledger: Ledger) -> bool:
            if older := _older_nodes(ledger):
                names = ", ".join(prefix.cn for prefix in older[:NAMES_SHOWN]) + (" ..." if older[NAMES_SHOWN:] else "")
                raise Conflict(f"the network has nodes of older software, which need long hellos: {names}")
            ledger.set_config(HELLOS, replace(_hellos(ledger), short=True).text())
            return self.update_version(ledger)

        changed = await self._store.call(job)
        if changed:
            self.changed()
        return changed

    def update_version_for_member(self, ledger: Ledger) -> bool:
        """As `update_version`, for what a member changed: each version makes all nodes ask for it, so many changes make
        few. What is not told at once, the next review tells, within a minute.
        """
        return self._member_versions.allow("", self._clock.trusted) and self.update_version(ledger)

    def update_version(self, ledger: Ledger, *, always: bool = False) -> bool:
        """Count the version up if the parameters changed (wire.md 5.2); whether it did."""
        own = ledger.registry_prefix()
        if own is None:
            return False
        parameters = replace(self._configured, registry_prefix=own, crl=frozenset(ledger.crl()))
        hellos = hello_choice.choose(hello_choice.read(ledger.config(HELLOS)), _has_older(ledger), self._clock.trusted)
        if hellos.text() != ledger.config(HELLOS):
            ledger.set_config(HELLOS, hellos.text())
        text = replace(parameters, babel_hello=_babel_hello(hellos), longest_prefix=ledger.longest_prefix()).text()
        if not always and text == ledger.config("last_config"):
            return False
        number = max(version_number(ledger.config("version") or b"\0"), ledger.config(FLOOR) or 0) + 1
        ledger.set_config("version", make_version(number, partial(cert.sign, self._authority.key)))
        ledger.set_config("last_config", text)
        return True

    def changed(self) -> None:
        """Read the parameters again, and let the node next to us spread them."""
        self.load()
        if self._current is not None:
            self._mesh.announce(self._current.registry_prefix)

    def load(self) -> None:
        """Read the parameters. Raises StoreError, and then forgets those it had: they are old."""
        rows = self._store.rows
        self._current = self._encoder = None
        try:
            own = rows.registry_prefix()
            if own is None:
                return
            babel, crl, version = rows.babel_state(), rows.crl(), rows.config("version")
            hello, longest = _babel_hello(_hellos(rows)), rows.longest_prefix()
        except sqlite3.Error as error:
            raise StoreError(f"database: {error}") from None
        self._current = replace(
            self._configured,
            registry_prefix=own,
            crl=frozenset(crl),
            babel_hello=hello,
            longest_prefix=longest,
            version=version or b"\0",
            babel_hmac_sign=babel.sign,
            babel_hmac_accept=babel.accept,
            valid_until=babel.valid_until,
            babel_switch_time=babel.switch_time,
        )


def _hellos(rows: Rows) -> Hellos:
    return hello_choice.read(rows.config(HELLOS)) or hello_choice.choose(None, _has_older(rows), 0.0)


def _babel_hello(hellos: Hellos) -> float | None:
    return BABEL_HELLO if hellos.short else None


def _has_older(rows: Rows) -> bool:
    return bool(rows.lacking(Extension.BABEL_HELLO, 1))


def _older_nodes(rows: Rows) -> list[Prefix]:
    return rows.lacking(Extension.BABEL_HELLO)
