"""The work of the registry besides its calls: the network's parameters and their version, and the deletion of old rows.

The version counts the changes that nodes must learn of (wire.md 5.2). The parameters are kept ready for callers, and
the node beside us is told of each change.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from re6st import cert
from re6st.core.limits.rate import RateLimit
from re6st.core.prefix import Prefix
from re6st.core.registry import hello_choice
from re6st.core.registry.clock import ClockError, Marks, TrustedClock, first_marks
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
from re6st.registryd.repository import Changes, Conflict, NotFound, Queries, RepositoryError
from re6st.registryd.resources import Resources

logger = logging.getLogger("registry")

FLOOR = "re6st_floor"
"""Our own row of `config`: the number of a version that nodes are known to have (restored.py)."""
HELLOS = "re6st_hellos"
"""Another one: which hellos the network has, as core/registry/hello_choice.py writes it."""
REGIONS = "re6st_regions"
"""The same of whether it is in regions, where the operator wants them: `short` if so, `long` where it stays flat."""
MEMBER_VERSIONS_PER_SECOND, MEMBER_VERSIONS = 1 / 60, 10
"""Versions that members may cause, all together: so many, then one a minute."""
CLEAN_UP_INTERVAL = 3600.0
RETRY_INTERVAL = 60.0
NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class RegionsState:
    """What became of the operator's wish for regions."""

    wanted: int
    """Bits of a prefix that are to tell the region of a node; 0: none are wanted."""
    choice: Hellos
    """`short` where all nodes can have them."""
    older: tuple[Prefix, ...]
    """Nodes that cannot."""

    @property
    def bits(self) -> int:
        """Bits that tell the region now; 0: the network is flat."""
        return self.wanted if self.choice.short else 0


class ParameterService:
    def __init__(self, resources: Resources, mesh: MeshView, marks: Marks) -> None:
        """`marks` are the times with which to begin (`first_time`)."""
        self._authority = resources.authority
        self._repository = resources.repository
        self._configured = resources.settings.parameters
        self._grace = resources.settings.grace
        self._mesh = mesh
        self._wall = resources.clocks.wall
        self._monotonic = resources.clocks.monotonic
        self._sleep = resources.clocks.sleep
        self._expiry = Expiry()
        self._clock = TrustedClock(marks, self._monotonic())
        self._member_versions = RateLimit(MEMBER_VERSIONS_PER_SECOND, MEMBER_VERSIONS)
        self._complaint = ""
        self._regions_notice = ""
        self._current: Parameters | None = None
        self._encoder: Encoder | None = None

    async def parameters(self) -> Parameters:
        """Raises NotFound before the first certificate, RepositoryError."""
        if self._current is None:
            await self.load()  # it failed before, or there was nothing
        if self._current is None:
            raise NotFound("no certificate has been issued yet, so there is no network")
        return self._current

    async def encoder(self) -> Encoder:
        """Encodes the parameters. Raises NotFound before the first certificate, RepositoryError."""
        parameters = await self.parameters()
        if self._encoder is None:
            self._encoder = Encoder(parameters)
        return self._encoder

    # --- time ---

    def now(self) -> float:
        """A Unix time for dates. Raises ClockError if the clock is wrong."""
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
            logger.warning("the clock is plausible again: issuing certificates")
        return self._wall()

    def trusted_now(self) -> float:
        """A Unix time that has surely passed: what ended before it has ended."""
        with suppress(ClockError):
            self.now()
        return self._clock.trusted

    def trust_clock(self) -> None:
        """The operator says that the clock is right."""
        self._clock = TrustedClock(Marks(self._wall(), self._wall()), self._monotonic())

    # --- life ---

    async def start(self) -> None:
        """Clean up, and find out what changed since the last run. Raises RepositoryError."""
        now = self.trusted_now()

        def job(changes: Changes) -> None:
            self._clean_up(changes, now)
            if changes.registry_prefix() is None:
                changes.set_config("babel_hmac0", secrets.token_bytes(KEY_LENGTH))
            self.update_version(changes)

        await self._repository.change(job)
        await self.changed()

    async def run(self) -> None:
        """Clean up when it is due, and report when the CA's certificate ends soon, for ever."""
        while True:
            end = pki.end_of(self._authority.trust.ca).timestamp()
            if notice := self._expiry.notice(AUTHORITY, end, self.trusted_now()):
                logger.log(logging.ERROR if notice.serious else logging.WARNING, "%s", notice.text)
            try:
                deadline = await self._repository.read(lambda queries: queries.first_deadline(self._grace))
                delay = CLEAN_UP_INTERVAL if deadline is None else deadline - self.trusted_now()
                await self._sleep(min(max(delay, 1.0), CLEAN_UP_INTERVAL))
                await self.clean_up()
            except RepositoryError as error:
                logger.error("cannot delete what has ended: %s", error)
                await self._sleep(RETRY_INTERVAL)

    async def clean_up(self) -> None:
        """Delete what ended long ago, unless another registry does that. Raises RepositoryError."""
        shared = self._repository.shared
        if shared is not None and not shared.leads:
            return
        now = self.trusted_now()

        def job(changes: Changes) -> bool:
            return self._clean_up(changes, now) and self.update_version(changes)

        if await self._repository.change(job):
            await self.changed()

    async def stop(self) -> None:
        """Store the times of the clock."""
        self.trusted_now()
        try:
            await self._repository.change(lambda changes: changes.set_marks(self._clock.marks))
        except RepositoryError as error:
            logger.error("%s", error)

    def _clean_up(self, changes: Changes, now: float) -> bool:
        changes.set_marks(self._clock.marks)
        return changes.clean_up(now, self._grace)

    # --- parameters ---

    async def rotate_keys(self) -> None:
        """Take the next step of a change of babel's keys (wire.md 5.4). Raises ClockError, RepositoryError."""
        now = self.now()

        def job(changes: Changes) -> None:
            new = secrets.token_bytes(KEY_LENGTH)
            changes.set_babel_state(next_state(changes.babel_state(), new, now, changes.count()))
            self.update_version(changes, always=True)

        await self._repository.change(job)
        await self.changed()

    async def review(self) -> None:
        """Check whether the software of the nodes that called requires other parameters. Raises RepositoryError."""
        self.trusted_now()
        if await self._repository.change(self.update_version):
            await self.changed()

    async def hellos(self) -> Hellos:
        """The hellos of the network. Raises RepositoryError."""
        return await self._repository.read(_hellos)

    async def older_nodes(self) -> list[Prefix]:
        """The nodes that need long hellos. Raises RepositoryError."""
        return await self._repository.read(_older_nodes)

    async def shorten_hellos(self) -> bool:
        """The operator says that no older node is left; returns whether this changed anything.

        Raises Conflict, RepositoryError.
        """
        return await self._switch_on(HELLOS, Extension.BABEL_HELLO, "need long hellos")

    async def regions(self) -> RegionsState:
        """Whether the network is in regions, and why not. Raises RepositoryError."""

        def job(queries: Queries) -> RegionsState:
            choice = _choice(queries, REGIONS, Extension.REGIONS)
            return RegionsState(self._configured.regions, choice, tuple(queries.lacking(Extension.REGIONS)))

        return await self._repository.read(job)

    async def begin_regions(self) -> bool:
        """The operator says that all nodes can have regions; returns whether this changed anything.

        Raises Conflict, RepositoryError.
        """
        return await self._switch_on(REGIONS, Extension.REGIONS, "cannot have regions")

    async def _switch_on(self, row: str, extension: Extension, why: str) -> bool:
        def job(changes: Changes) -> bool:
            if older := changes.lacking(extension):
                raise Conflict(f"the network has nodes of older software, which {why}: {_names(older)}")
            changes.set_config(row, replace(_choice(changes, row, extension), short=True).text())
            return self.update_version(changes)

        changed = await self._repository.change(job)
        if changed:
            await self.changed()
        return changed

    def update_version_for_member(self, changes: Changes) -> bool:
        """As `update_version`, for a change that a member caused: each version makes all nodes call, so many changes
        become few versions. If a change is not announced at once, the next review announces it, within a minute.
        """
        return self._member_versions.allow("", self._clock.trusted) and self.update_version(changes)

    def update_version(self, changes: Changes, *, always: bool = False) -> bool:
        """Count the version up if the parameters changed (wire.md 5.2); returns whether they did."""
        own = changes.registry_prefix()
        if own is None:
            return False
        parameters = replace(self._configured, registry_prefix=own, crl=frozenset(changes.crl()))
        hellos = self._choose(changes, HELLOS, Extension.BABEL_HELLO)
        if self._configured.regions and not self._choose(changes, REGIONS, Extension.REGIONS).short:
            parameters = replace(parameters, regions=0)
        text = replace(parameters, babel_hello=_babel_hello(hellos), longest_prefix=changes.longest_prefix()).text()
        if not always and text == changes.config("last_config"):
            return False
        number = max(version_number(changes.config("version") or b"\0"), changes.config(FLOOR) or 0) + 1
        changes.set_config("version", make_version(number, partial(cert.sign, self._authority.key)))
        changes.set_config("last_config", text)
        return True

    def _choose(self, changes: Changes, row: str, extension: Extension) -> Hellos:
        """Whether the network has what all its nodes must be able to have."""
        older = bool(changes.lacking(extension, 1))
        chosen = hello_choice.choose(hello_choice.read(changes.config(row)), older, self._clock.trusted)
        if chosen.text() != changes.config(row):
            changes.set_config(row, chosen.text())
        return chosen

    async def changed(self) -> None:
        """Read the parameters again, and let the node beside us spread them."""
        await self.load()
        if self._current is not None:
            self._mesh.announce(self._current.registry_prefix)

    async def load(self) -> None:
        """Read the parameters. Raises RepositoryError, and forgets the old ones then."""
        self._current = self._encoder = None
        self._current = await self._repository.read(self._stored)
        if self._configured.regions and self._current is not None:
            self._tell_regions(self._current, (await self.regions()).older)

    def _tell_regions(self, parameters: Parameters, older: Sequence[Prefix]) -> None:
        """Tell the operator whether the network is in regions, once for each change."""
        notice = f"the network is in regions of {parameters.regions} bits"
        if not parameters.regions:
            why = f"{len(older)} node(s) cannot have them: {_names(older)}" if older else "older nodes were here lately"
            notice = f"--regions {self._configured.regions}: the network stays flat: {why} (see re6st-registry regions)"
        if notice != self._regions_notice:
            self._regions_notice = notice
            logger.log(logging.INFO if parameters.regions else logging.WARNING, "%s", notice)

    def _stored(self, queries: Queries) -> Parameters | None:
        """None before the first certificate."""
        own = queries.registry_prefix()
        if own is None:
            return None
        babel = queries.babel_state()
        return replace(
            self._configured,
            registry_prefix=own,
            crl=frozenset(queries.crl()),
            babel_hello=_babel_hello(_hellos(queries)),
            longest_prefix=queries.longest_prefix(),
            regions=self._configured.regions if _choice(queries, REGIONS, Extension.REGIONS).short else 0,
            version=queries.config("version") or b"\0",
            babel_hmac_sign=babel.sign,
            babel_hmac_accept=babel.accept,
            valid_until=babel.valid_until,
            babel_switch_time=babel.switch_time,
        )


def first_time(queries: Queries, wall: float) -> Marks:
    """The times with which a registry starts; `wall` is the machine's Unix time."""
    return first_marks(queries.marks(), queries.newest_issue(), wall)


def _choice(queries: Queries, row: str, extension: Extension) -> Hellos:
    """What was chosen last."""
    return hello_choice.read(queries.config(row)) or hello_choice.choose(None, bool(queries.lacking(extension, 1)), 0.0)


def _hellos(queries: Queries) -> Hellos:
    return _choice(queries, HELLOS, Extension.BABEL_HELLO)


def _babel_hello(hellos: Hellos) -> float | None:
    return BABEL_HELLO if hellos.short else None


def _older_nodes(queries: Queries) -> list[Prefix]:
    return queries.lacking(Extension.BABEL_HELLO)


def _names(older: Sequence[Prefix]) -> str:
    return ", ".join(prefix.cn for prefix in older[:NAMES_SHOWN]) + (" ..." if older[NAMES_SHOWN:] else "")
