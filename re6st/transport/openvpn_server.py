"""A server for client tunnels of others: the life of one, from its first OpenVPN process on (wire.md section 8).

transport/openvpn.py knows how a process is started and spoken with.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence

from re6st.core.limits.budget import Buckets
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.transport.openvpn_lines import (
    Behind,
    Client,
    ClientChange,
    EndOfList,
    Fatal,
    Hold,
    Listed,
    ProcessState,
    ProcessTraffic,
)
from re6st.core.transport.untimely import Untimely
from re6st.linux.all_nodes import send_to_all_nodes
from re6st.linux.process import Child, end_of, keep_running
from re6st.transport import openvpn
from re6st.transport.openvpn import FOLLOW, Management, OpenVpnSettings
from re6st.tunnel import FoundServer, ListenerOwner, ServerClient

CLIENT_LIMIT = 100_000
COMINGS = 0.5, 40, 100, 1000
"""How often one client is let in a second, and at once, and all of them: each time costs us as much as it likes, in the
policy of the mesh, in babel and in the log, and an honest one comes a few times, over all its addresses and ours."""
ENDED_FOR_ONE = 2
"""How many dead clients are ended at most for one newcomer: where many are too many, as the limit was lowered, it would
be in vain."""
TELL_EVERY = 60.0
STIR_FIRST, STIR_LAST = 0.005, 0.5
"""Seconds until OpenVPN is made to look again at the clients that we have let in, doubling; and the least between two
times, however many come: each time costs a packet for every client.
"""

log = logging.getLogger(__name__)


class OpenVpnServer:
    """A tunnel.Listener: one process, which is kept running, serves all clients of one protocol on one interface."""

    def __init__(
        self,
        settings: OpenVpnSettings,
        interface: str,
        argv: Sequence[str],
        owner: ListenerOwner,
        mtu: int,
        found: FoundServer | None = None,
    ) -> None:
        self.interface = interface
        self.settings = settings
        self.argv = argv
        self.listening = asyncio.Event()
        self.runs = 0
        """How often it was started."""
        self.clients: dict[int, ServerClient] = {}
        self.hardware: dict[str, Prefix] = {}
        """Whose hardware addresses are behind which client, by the last `look`."""
        self.looked: Callable[[], object] = lambda: None
        """Called after each."""
        self.traffic: dict[int, ProcessTraffic] = {}
        """By client; at most COUNT_TIME old."""
        self._owner = owner
        self._mtu = mtu
        self._found = found
        self._child: Child | None = None
        self._management: Management | None = None
        self._comings: Buckets[Prefix] = Buckets(*COMINGS)
        self._told_of_haste = float("-inf")
        self._let_in_now: set[int] = set()
        """Clients that OpenVPN has not told that they may come in."""
        self._stirred, self._stir_pause = float("-inf"), STIR_FIRST
        self._stir_timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def run(self) -> None:
        """Start it, or go on with the one `found`; serve, start it again when it ends, until cancelled."""
        name = f"OpenVPN server {self.interface}"
        await keep_running(name, self._run_once, self.settings.output(self.interface))

    def restart(self) -> None:
        """End the process, which is started again: its clients come back."""
        if self._child is not None:
            self._child.signal(signal.SIGTERM)

    def look(self) -> None:
        """Ask OpenVPN again whose hardware addresses are behind which client; see `hardware`."""
        if self._management and self.listening.is_set():
            self._management.send("status 3")

    def cut(self, peer: Prefix) -> None:
        """Cut off every client with the certificate of a peer."""
        for ident in [ident for ident, client in self.clients.items() if client.peer == peer]:
            if self._management:
                self._management.send(f"client-kill {ident}")
                self._gone(ident)  # at once: somebody may wait for the place

    def kick(self, revoked: frozenset[int]) -> None:
        """Cut off the clients whose certificate is revoked, or of unknown number; the others notice nothing."""
        for ident, client in self.clients.items():
            if (client.serial is None or client.serial in revoked) and self._management:
                if client.serial is None:
                    log.warning(
                        "cutting off %s: OpenVPN does not tell the serial number of its certificate", client.peer
                    )
                else:
                    log.warning("cutting off %s: its certificate %s is revoked", client.peer, client.serial)
                self._management.send(f"client-kill {ident}")

    async def _run_once(self) -> str:
        self.runs += 1
        found, self._found = self._found, None
        if found is None:
            child, management = await openvpn.start(self.settings, self.interface, self.argv)
        else:
            child, management = await openvpn.resume(self.settings, self.interface, found.pid)
        self._child, self._management = child, management
        listed: set[int] = set()
        behind: dict[str, str] = {}
        taking_over, reason = found is not None, ""
        try:
            management.send(*FOLLOW, *self.settings.follow_refusals)
            if found is not None:
                for ident, client in found.clients.items():
                    if self._may_stay(client):
                        self.clients[ident] = client
                        self._owner.joined(client)
                management.send("status 3")
                await self._serving()
            async for event in management.events():
                match event:
                    case Behind(hardware, name):
                        behind[hardware] = name
                    case Listed(ident, name) if taking_over:
                        known = self.clients.get(ident)
                        if known is not None and known.peer.cn == name:
                            listed.add(ident)
                        else:
                            # It may not stay, or came while nobody could say whether it may; then it will come again.
                            management.send(f"client-kill {ident}")
                    case EndOfList():
                        for ident in self.clients.keys() - listed if taking_over else ():
                            self._owner.left(self.clients.pop(ident))
                        taking_over = False
                        names = {client.peer.cn: client.peer for client in self.clients.values()}
                        self.hardware = {key: names[name] for key, name in behind.items() if name in names}
                        behind = {}
                        self.looked()
                    case Hold():
                        management.send("hold release")
                    case ProcessTraffic(int(ident)) if ident in self.clients:
                        self.traffic[ident] = event
                    case ProcessState("CONNECTED"):
                        await self._serving()
                    case Client():
                        self._client(event, management)
                    case Untimely():
                        self._owner.untimely(event)
                    case Fatal(text):
                        reason = text
            return reason or await end_of(child)
        finally:
            self._child = self._management = None
            self.listening.clear()
            management.close()
            # Before anything that waits, and so could be cut short by a cancellation.
            self.traffic.clear()
            self._let_in_now.clear()
            self.hardware = {}
            for ident in list(self.clients):
                self._owner.left(self.clients.pop(ident))
            try:
                await child.stop()
            finally:
                await self._owner.down(self.interface)

    async def _serving(self) -> None:
        await self._owner.up(self.interface, self._mtu)
        self.listening.set()

    def _client(self, event: Client, management: Management) -> None:
        match event.change:
            case ClientChange.CONNECT | ClientChange.REAUTH:
                self._let_in(event, management)
            case ClientChange.ESTABLISHED:
                self._let_in_now.discard(event.ident)
            case ClientChange.DISCONNECT:
                self._gone(event.ident)

    def _gone(self, ident: int) -> None:
        self._let_in_now.discard(ident)
        self.traffic.pop(ident, None)
        if client := self.clients.pop(ident, None):
            self._owner.left(client)

    def _let_in(self, event: Client, management: Management) -> None:
        environment, ident = event.environment, event.ident
        try:
            peer, now = Prefix.from_cn(environment.common_name), asyncio.get_running_loop().time()
            client = ServerClient(peer, environment.serial, environment.trusted_ip, now, environment.number)
            if client.serial is None:  # it could not be cut off when it is revoked
                raise PrefixError(f"OpenVPN does not tell the serial number of the certificate of {peer}")
        except PrefixError as error:
            client = None
            log.warning("refused a tunnel from %s: %s", environment.trusted_ip, error)
        if client is None or not self._may_come(client, event.change):
            management.send(f'client-deny {ident} {event.key} "not accepted"')
            return
        if event.change is ClientChange.REAUTH:
            management.send(f"client-auth-nt {ident} {event.key}")
            return
        # Peers behind NAT learn their public address from this push (wire.md 8.1).
        push = [f'push "setenv-safe external_ip {client.address}"'] if client.address else []
        # Whom another server holds does not notice by itself that there are two of it.
        if client.address and (twin := self._owner.came(client.peer, client.address)):
            push.append(f'push "setenv-safe twin {twin}"')
        # Both ends must agree on how long silence may last, also after the network's interval has changed.
        push += [f'push "ping {self.settings.ping}"', f'push "ping-exit {self.settings.ping_exit}"']
        management.send(f"client-auth {ident} {event.key}", *push, "END")
        self.clients[ident] = client
        self._owner.joined(client)
        self._let_in_now.add(ident)
        self._stir_pause = STIR_FIRST
        self._stir()

    def _stir(self) -> None:
        """Have OpenVPN tell clients at once that they may come in: all that wait, by one packet.

        OpenVPN 2.6 looks at a client again when a packet comes from it or is for it, or a second has passed. On a short
        way the last one of its handshake is there before our word: so one is sent to all of its clients. Whom it has
        not told does not get it.
        """
        if self._stir_timer is not None:
            self._stir_timer.cancel()
            self._stir_timer = None
        if not self._let_in_now:
            return
        loop = asyncio.get_running_loop()
        wait = self._stirred + STIR_FIRST - loop.time()
        if wait <= 0:
            send_to_all_nodes(self.interface)
            self._stirred = loop.time()
            wait, self._stir_pause = self._stir_pause, 2 * self._stir_pause
        if wait <= STIR_LAST:
            self._stir_timer = loop.call_later(wait, self._stir)

    def _may_stay(self, client: ServerClient) -> bool:
        """Whether one that an earlier daemon let in is still let in."""
        # Without a serial number it could not be cut off when it is revoked.
        if client.serial is not None and self._owner.admits(client.peer, client.serial):
            return True
        log.warning(
            "cutting off %s, whom an earlier daemon let in: its certificate %s is not accepted any more",
            *(client.peer, client.serial),
        )
        return False

    def _may_come(self, client: ServerClient, change: ClientChange) -> bool:
        if not self._owner.admits(client.peer, client.serial):
            return False
        if change is not ClientChange.CONNECT:
            return self._over(client.peer) < 0
        if self._comings.take(client.peer, client.since):
            return not self._full(client.peer)
        if client.since - self._told_of_haste >= TELL_EVERY:
            self._told_of_haste = client.since
            log.warning(
                "%s at %s connects again and again: it is accepted every %g s at most. Ask its owner, or revoke it:"
                " re6st-registry revoke %s",
                *(client.peer, client.address, 1 / COMINGS[0], client.peer),
            )
        return False

    def _full(self, peer: Prefix) -> bool:
        """Whether there is no place for a newcomer, also after dead ones were ended for it, if few have to be."""
        over = self._over(peer)
        while 0 <= over < ENDED_FOR_ONE and self._owner.make_room(peer):
            before, over = over, self._over(peer)
            if over >= before:
                break
        return over >= 0

    def _over(self, peer: Prefix) -> int:
        """By how many clients there is no room for a peer, itself left out: who connects again is not counted twice.
        The last place is taken at 0.
        """
        others = sum(client.peer != peer for client in self.clients.values())
        return others - min(self._owner.room(peer), CLIENT_LIMIT)
