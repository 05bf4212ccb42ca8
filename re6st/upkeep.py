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
from dataclasses import replace
from functools import partial

from re6st import cert
from re6st.core.params import KEY_LENGTH, Parameters, make_version, version_number
from re6st.ledger import Ledger, NotFound
from re6st.registry_mesh import MeshView
from re6st.store import Store, StoreError

logger = logging.getLogger("registry")

KEY_ROTATION_TIME = 3600
"""Seconds until nodes that missed the first step of updateHMAC should know it (wire.md 5.4)."""
CLEAN_UP_INTERVAL = 3600.0
RETRY_INTERVAL = 60.0


class Upkeep:
    def __init__(
        self,
        authority: cert.Authority,
        store: Store,
        parameters: Parameters,
        grace: int,
        mesh: MeshView,
        clock: Callable[[], float],
    ) -> None:
        """`parameters` has the part that the command line sets; `grace` in seconds; `clock` gives Unix time."""
        self._authority = authority
        self._store = store
        self._configured = parameters
        self._grace = grace
        self._mesh = mesh
        self._clock = clock
        self._current: Parameters | None = None

    @property
    def parameters(self) -> Parameters:
        """Raises NotFound before the first certificate."""
        if self._current is None:
            raise NotFound("no certificate was issued yet, so there is no network")
        return self._current

    async def start(self) -> None:
        """Clean up, and see what changed since the last run. Raises StoreError, LedgerError (wrong clock)."""

        def job(ledger: Ledger) -> None:
            ledger.clean_up(self._clock(), self._grace)
            if ledger.registry_prefix() is None:
                ledger.set_config("babel_hmac0", secrets.token_bytes(KEY_LENGTH))
            self.update_version(ledger)

        await self._store.call(job)
        self.changed()

    async def run(self) -> None:
        """Clean up when it is due, for ever. Raises LedgerError (wrong clock)."""
        while True:
            try:
                deadline = self._store.rows.first_deadline(self._grace)
                delay = CLEAN_UP_INTERVAL if deadline is None else deadline - self._clock()
                await asyncio.sleep(min(max(delay, 1.0), CLEAN_UP_INTERVAL))
                if await self._store.call(self._clean_up):
                    self.changed()
            except (StoreError, sqlite3.Error) as error:
                logger.error("clean-up: %s", error)
                await asyncio.sleep(RETRY_INTERVAL)

    def _clean_up(self, ledger: Ledger) -> bool:
        return ledger.clean_up(self._clock(), self._grace) and self.update_version(ledger)

    async def rotate_keys(self) -> None:
        """The next state of the babel keys (wire.md 5.4)."""

        def job(ledger: Ledger) -> None:
            keys: list[bytes | None] = [ledger.config(f"babel_hmac{n}") for n in range(3)]
            until: float | None = None
            match [key is not None for key in keys]:
                case [True, False, False]:
                    keys[1], until = secrets.token_bytes(KEY_LENGTH), self._clock() + KEY_ROTATION_TIME
                case [False, False, False]:
                    keys[1:] = secrets.token_bytes(KEY_LENGTH), b""
                case [True, True, False]:
                    keys = [None, keys[1], keys[0]]
                case _:
                    keys = [keys[1] or keys[0] or keys[2], None, None]
            for n, key in enumerate(keys):
                ledger.set_config(f"babel_hmac{n}", key)
            ledger.set_config("valid_until", until)
            self.update_version(ledger, always=True)

        await self._store.call(job)
        self.changed()

    def update_version(self, ledger: Ledger, *, always: bool = False) -> bool:
        """Count the version up if the parameters changed (wire.md 5.2); whether it did."""
        own = ledger.registry_prefix()
        if own is None:
            return False
        text = replace(self._configured, registry_prefix=own, crl=frozenset(ledger.crl())).text()
        if not always and text == ledger.config("last_config"):
            return False
        number = version_number(ledger.config("version") or b"\0") + 1
        ledger.set_config("version", make_version(number, partial(cert.sign, self._authority.key)))
        ledger.set_config("last_config", text)
        return True

    def changed(self) -> None:
        """Read the parameters again, and let the node next to us spread them."""
        rows = self._store.rows
        own = rows.registry_prefix()
        if own is None:
            return
        keys = [key for n in range(3) if (key := rows.config(f"babel_hmac{n}")) is not None]
        self._current = replace(
            self._configured,
            registry_prefix=own,
            crl=frozenset(rows.crl()),
            version=rows.config("version") or b"\0",
            babel_hmac_sign=keys[0] if keys else None,
            babel_hmac_accept=keys[1] if len(keys) > 1 else None,
            valid_until=rows.config("valid_until"),
        )
        self._mesh.announce(own)
