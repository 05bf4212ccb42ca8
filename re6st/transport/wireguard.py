"""The WireGuard links of a node: what they agree on is done, and they are told what happens.

core/transport/wireguard_agreement.py decides; here are the clock, the keys and the interfaces (linux/wireguard.py).
Each interface has a task of its own for as long as it is there: it makes the interface, carries out orders one after
the other, and looks now and again whether something has come in.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, assert_never

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_agreement import Agreement
from re6st.core.transport.wireguard_links import OwnEnd, WireGuardLink
from re6st.core.transport.wireguard_state import (
    Action,
    Change,
    Dial,
    Ended,
    Fresh,
    LinkSettings,
    Make,
    Remove,
    Send,
    Up,
)
from re6st.core.transport.wireguard_uapi import Address, LinkConfig, LinkState
from re6st.core.tunnel_protocols import Role
from re6st.core.wire import wireguard
from re6st.core.wire.wireguard import Confirm, Done, Met, Reason, Terms
from re6st.keys.wireguard import new_keys
from re6st.linux.wireguard import Device, Implementation, WireGuardError, WireGuardKernel, bring_up

LOOK_FIRST, LOOK = 0.05, 5.0
"""Seconds between two looks at an interface: while the first packet with its keys is awaited, and afterwards."""
SHUT_TIME = 1.0
"""Seconds in which an interface that is to go has forgotten the keys of its peer."""
KEEPALIVE = 25
"""Seconds between packets of a client that has nothing to say: NATs forget it otherwise."""

log = logging.getLogger(__name__)


class LinkOwner(Protocol):
    """Who is asked, and told, about links."""

    def say(self, peer: Prefix, body: bytes) -> None:
        """Send a message about links to a peer, if it takes such messages now."""

    def admits(self, peer: Prefix) -> bool:
        """Whether a peer may open a link to us."""

    def hosts(self, peer: Prefix) -> Sequence[Address]:
        """Where a peer may be reached, the best first."""

    def mark(self, peer: Prefix) -> int:
        """What packets to a peer that we dial are to be marked with; 0: with nothing."""

    def made(self, interface: str) -> None:
        """An interface is there, and is about to be brought up. Raises OSError."""

    async def leaving(self, interface: str) -> None:
        """It is about to be removed, or is gone: nobody is behind it any more. Raises nothing."""

    def up(self, link: WireGuardLink, process: tuple[int, str] | None) -> None:
        """A link is up, or has other keys: the next daemon has to know."""

    def confirmed(self, link: WireGuardLink) -> None:
        """The peer has said, in the session of now, that it has this link, by its keys or those that come next."""

    def met(self, link: WireGuardLink, moved: bool) -> None:
        """The peer has met us on a link; see core/wire/wireguard.py."""

    def ended(self, ended: Ended) -> None:
        """There is no link any more, or none came up; its interface goes."""


@dataclass(slots=True)
class _Interface:
    """An interface with its task."""

    link: WireGuardLink
    before: _Interface | None = None
    """The last one of its name, which may still be there, or may itself wait for one."""
    orders: asyncio.Queue[tuple[WireGuardLink, Address | None]] = field(default_factory=asyncio.Queue)
    """What it is to have next, and where to dial; None: where the peer was heard last."""
    task: asyncio.Task[None] | None = None
    device: Device | None = None
    seen: LinkState = field(default_factory=LinkState)
    """What it was like when it was looked at last."""
    unwanted: bool = False
    """It is to be removed. Otherwise it stays when the task ends, for the next daemon."""
    ends: bool = False
    """Its task is about to end of itself."""


class WireGuardLinks:
    """All of them. `start` starts a task of the node, `beside` are agreements of the node on links beside these. What a
    peer says about links goes to `received`.
    """

    def __init__(
        self,
        own: Prefix,
        settings: LinkSettings,
        implementation: Implementation,
        kernel: WireGuardKernel,
        owner: LinkOwner,
        start: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        beside: Callable[[], Iterable[Agreement]] = tuple,
    ) -> None:
        self.agreement = Agreement(own, settings, new_end, owner.admits, beside)
        self._implementation = implementation
        self._kernel = kernel
        self._owner = owner
        self._start = start
        self._interfaces: dict[str, _Interface] = {}
        self._changed = asyncio.Event()

    @property
    def interfaces(self) -> frozenset[str]:
        """Those that are there, or may still be, or for which a link is proposed."""
        return frozenset(self._interfaces) | self.agreement.interfaces

    # -- what the node wants, and hears --

    def open(self, peer: Prefix, interface: str) -> bool:
        """Open a link to a peer, on this interface; whether that is tried. See `LinkOwner.ended`."""
        self._carry_out(self.agreement.open(peer, interface, _now()))
        return self.agreement.phase(peer) is not None

    def close(self, peer: Prefix, reason: Reason = Reason.CLOSED, *, tell: bool = True) -> None:
        """Have no link with a peer."""
        self._carry_out(self.agreement.close(peer, _now(), reason, tell=tell))

    def received(self, peer: Prefix, body: bytes) -> None:
        """Take what a peer says. Raises WireError for what is no message."""
        message = wireguard.decode(body)
        self._carry_out(self.agreement.received(peer, message, _now()))
        link = self.agreement.links.get(peer)
        if link is None:
            return
        match message:
            case Met(number, moved) if number == link.number:
                self._owner.met(link, moved)
            case Confirm() | Done() if self.agreement.is_proved(peer, message):
                self._owner.confirmed(link)

    def tell_met(self, peer: Prefix, moved: bool) -> None:
        """Tell a peer that babel has met it on our link, and ask the same; `moved`: we use no other tunnel with it."""
        link = self.agreement.links.get(peer)
        if link is not None:
            self._owner.say(peer, wireguard.encode(Met(link.number, moved)))

    def seen(self, interface: str) -> LinkState:
        """What an interface was like some seconds ago."""
        own = self._interfaces.get(interface)
        return LinkState() if own is None else own.seen

    def met(self, peer: Prefix) -> None:
        """A peer has said in a new session that it has links."""
        self._carry_out(self.agreement.met(peer, _now()))

    def resume(self, found: Iterable[tuple[WireGuardLink, tuple[int, str] | None, float]]) -> None:
        """Go on with links that an earlier daemon left up, with the processes that carry them.

        The last of each is when its keys were made.
        """
        there = []
        for link, process, made in found:
            try:
                device = self._implementation.found(link.interface, process)
            except WireGuardError as error:
                log.warning("link to %s, of an earlier run: %s", link.peer, error.strerror)
                continue
            there.append((link, made))
            self._run(_Interface(link, device=device))
        self.agreement.resume(there, _now())
        self._changed.set()  # who goes on with them takes them for its own before anything becomes of them

    async def run(self) -> None:
        """Do what is due, until cancelled. The interfaces stay."""
        while True:
            self._changed.clear()
            deadline = self.agreement.deadline()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if deadline == float("inf") else max(0.0, deadline - _now())):
                    await self._changed.wait()
            self._carry_out(self.agreement.tick(_now()))

    async def end(self) -> None:
        """End all links, and remove their interfaces."""
        for own in list(self._interfaces.values()):
            self.close(own.link.peer)
        if tasks := [own.task for own in self._interfaces.values() if own.task is not None]:
            await asyncio.wait(tasks)

    # -- what is to be done --

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(peer, message):
                    self._owner.say(peer, wireguard.encode(message))
                case Make(link):
                    self._run(_Interface(link))
                case Dial(link, attempt):
                    hosts = self._owner.hosts(link.peer)
                    self._order(link, hosts[attempt % len(hosts)] if hosts else None)
                case Change(link):
                    self._order(link, None)
                case Remove(link):
                    self._remove(link)
                case Up(link):
                    own = self._interfaces.get(link.interface)
                    self._owner.up(link, own.device.process if own and own.device else None)
                case Ended():
                    self._owner.ended(action)
                case _:
                    assert_never(action)
        self._changed.set()

    def _run(self, own: _Interface) -> None:
        own.before = self._interfaces.get(own.link.interface)
        self._interfaces[own.link.interface] = own
        own.task = self._start(self._live(own), f"WireGuard interface {own.link.interface}")

    def _order(self, link: WireGuardLink, host: Address | None) -> None:
        own = self._interfaces.get(link.interface)
        if own is not None:
            own.link = link
            own.orders.put_nowait((link, host))

    def _remove(self, link: WireGuardLink) -> None:
        own = self._interfaces.get(link.interface)
        if own is not None and own.task is not None:
            own.unwanted = True
            if not own.ends:
                # After its first step: a task that is cancelled before it removes nothing.
                asyncio.get_running_loop().call_soon(own.task.cancel)

    # -- the life of an interface --

    async def _live(self, own: _Interface) -> None:
        peer, number = own.link.peer, own.link.number
        try:
            while own.before is not None:
                if own.before.task is not None:
                    await asyncio.wait([own.before.task])
                own.before = own.before.before
            if own.device is None:
                own.device = device = await self._make(own.link)
                self._carry_out(self.agreement.made(peer, number, _now()))
                await self._follow_until_gone(own, device)
            else:
                own.seen = await own.device.state()
                if own.seen.peer != own.link.theirs.key:  # its keys were about to change
                    await own.device.configure(config_of(own.link, known_place(own.link, own.seen)))
                    own.seen = LinkState()
                await self._follow_until_gone(own, own.device)
        except OSError as error:
            log.warning("link to %s: %s", peer, error.strerror)
            own.unwanted = own.ends = True
            taken = error.errno == errno.EADDRINUSE
            self._carry_out(self.agreement.failed(peer, own.link.number, _now(), port_taken=taken))
        finally:
            try:
                if own.unwanted and own.device is not None:
                    await self._shut(own.link, own.device)
                    await self._remove_device(own.link.interface, own.device)
            finally:
                self._forget(own)

    def _forget(self, own: _Interface) -> None:
        if self._interfaces.get(own.link.interface) is not own:
            return
        before = own.before
        while before is not None and (before.task is None or before.task.done()):
            before = before.before
        if before is None:
            del self._interfaces[own.link.interface]
        else:  # this one did not even begin: the next one has to wait for that one, too
            self._interfaces[own.link.interface] = before

    async def _shut(self, link: WireGuardLink, device: Device) -> None:
        """Let nothing of the peer in any more: it may be revoked, and the interface is up for another moment."""
        # Not by asyncio.timeout: in a task that was cancelled, that of Python 3.11.2 ends with CancelledError.
        shutting = asyncio.create_task(_forget_peer(link, device))
        await asyncio.wait((shutting,), timeout=SHUT_TIME)
        shutting.cancel()

    async def _remove_device(self, interface: str, device: Device) -> None:
        try:
            await self._owner.leaving(interface)
        finally:
            await device.remove()

    async def _make(self, link: WireGuardLink) -> Device:
        """Raises OSError; then there is none."""
        device = await self._implementation.make(link.interface)
        try:
            self._owner.made(link.interface)
            bring_up(self._kernel, link.interface, link.own.terms.address, link.mtu)
            mark = self._owner.mark(link.peer) if link.role is Role.CLIENT else 0
            await device.configure(replace(config_of(link, None), mark=mark or None))
        except BaseException:
            await self._remove_device(link.interface, device)
            raise
        return device

    async def _follow_until_gone(self, own: _Interface, device: Device) -> None:
        """Raises OSError when the interface is gone."""
        tasks = asyncio.create_task(self._follow(own, device)), asyncio.create_task(device.gone())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            raise WireGuardError(None, f"{own.link.interface} is gone: what carried it has ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _follow(self, own: _Interface, device: Device) -> None:
        """Carry out orders, and look whether something came in. Raises OSError."""
        while True:
            try:
                async with asyncio.timeout(LOOK_FIRST if self.agreement.awaits(own.link.peer) else LOOK):
                    link, host = await own.orders.get()
            except TimeoutError:
                state = await device.state()
                heard, own.seen = has_heard(own.seen, state), state
                if heard:
                    self._carry_out(self.agreement.heard(own.link.peer, _now()))
                continue
            at = known_place(link, await device.state()) if host is None else (host, link.theirs.port)
            await device.configure(config_of(link, at))
            own.seen = LinkState()
            self._carry_out(self.agreement.changed(link.peer, link.number, _now()))


async def _forget_peer(link: WireGuardLink, device: Device) -> None:
    """Give an interface the key of nobody instead of its peer's: with none, babeld could not send by it."""
    with suppress(OSError):
        nobody = replace(config_of(link, (await device.state()).endpoint), peer=new_keys()[1], keepalive=0)
        await device.configure(nobody)


def config_of(link: WireGuardLink, endpoint: tuple[Address, int] | None) -> LinkConfig:
    """What an interface of a link has."""
    keepalive = KEEPALIVE if link.role is Role.CLIENT else 0
    return LinkConfig(link.own.secret, link.own.terms.port, link.theirs.key, endpoint, keepalive)


def known_place(link: WireGuardLink, seen: LinkState) -> tuple[Address, int] | None:
    """Where an interface with other keys has its peer. A server waits for its client's handshake: two that cross each
    other end both, and WireGuard begins the next ones 5 s later."""
    return seen.endpoint if link.role is Role.CLIENT else None


def has_heard(before: LinkState, now: LinkState) -> bool:
    """Whether something came in since a look before: a packet, or a handshake, which comes first. What is counted
    before that is only an attempt at one."""
    return now.handshake is not None and (now.received > before.received or now.handshake != before.handshake)


def new_end() -> Fresh:
    """Keys and an address by chance, for one link."""
    secret, public = new_keys()
    address = wireguard.link_local(int.from_bytes(os.urandom(8)) or 1)
    return Fresh(OwnEnd(secret, Terms(public, 0, 0, address)), int(time.time() * 1000))


def _now() -> float:
    return time.monotonic()
