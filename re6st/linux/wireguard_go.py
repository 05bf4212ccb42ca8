"""WireGuard by the program wireguard-go, which has the interface for as long as it runs (Debian: wireguard-go).

It has its sockets in one directory for the whole machine, named like the interfaces as they were made. Nodes in
network namespaces of their own have interfaces of the same names; so one is made by another name, and then renamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from re6st.core import interfaces
from re6st.core.transport import wireguard_uapi
from re6st.core.transport.wireguard_uapi import LinkConfig, LinkState, UapiError
from re6st.linux.process import Child, MissingProgram, command_line, connect, find_program, status_text
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import NoWireGuard, WireGuardError, need_port

PROGRAM = "wireguard-go"
SOCKETS = Path("/var/run/wireguard")
START_TIME = 5.0
"""Seconds until its socket is there; it takes 50 ms on a quiet machine."""
ANSWER_TIME = 5.0
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


def _limit(instances: Path = INOTIFY) -> str:
    """What to look at where it ended at once. It says why on its standard error, which nobody keeps."""
    try:
        limit = instances.read_text().strip()
    except OSError:
        return ""
    return f". It may be that each link needs an inotify instance: a user has {limit} (fs.inotify.max_user_instances)"


class WireGuardGo:
    """The linux.wireguard.Implementation. Raises NoWireGuard when it is made where it cannot work."""

    name = PROGRAM

    def __init__(self, netlink: Netlink, program: str | None = None, sockets: Path = SOCKETS) -> None:
        try:
            self._program = program or find_program(PROGRAM)
        except MissingProgram:
            raise NoWireGuard("wireguard-go is not installed (Debian: apt install wireguard-go)") from None
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise NoWireGuard("/dev/net/tun cannot be used, which wireguard-go needs")
        try:
            sockets.mkdir(mode=0o700, exist_ok=True)
            usable = os.access(sockets, os.W_OK | os.X_OK)
        except OSError:
            usable = False
        if not usable:
            raise NoWireGuard(f"{sockets} cannot be written, where wireguard-go has its sockets")
        self._netlink = netlink
        self._sockets = sockets

    async def make(self, interface: str) -> WireGuardGoDevice:
        """Start one. Raises WireGuardError."""
        name = interfaces.unfinished(os.urandom(4))
        try:
            child = await Child.start(interface, (self._program, "--foreground", name))
        except OSError as error:
            raise WireGuardError(error.errno, f"{PROGRAM}: {error.strerror}") from None
        device = WireGuardGoDevice(interface, name, child, self._netlink, self._sockets)
        try:
            _, writer = await connect(child, device.socket, START_TIME)
            writer.close()
            index = next((link.index for link in self._netlink.links() if link.name == name), None)
            if index is None:
                raise WireGuardError(None, f"{PROGRAM} made no interface {name}")
            self._netlink.rename_link(index, interface)
        except BaseException as error:
            ended = not child.running
            await device.remove()
            if isinstance(error, WireGuardError) or not isinstance(error, OSError):
                raise
            hint = _limit() if ended else ""
            raise WireGuardError(error.errno, f"{PROGRAM}: {error.strerror or error}{hint}") from None
        return device

    def found(self, interface: str, process: tuple[int, str] | None) -> WireGuardGoDevice:
        """Go on with one. Raises WireGuardError."""
        if process is None or not interfaces.is_unfinished(process[1]) or command_line(process[0])[-1:] != [process[1]]:
            raise WireGuardError(None, f"{interface} is not carried by {PROGRAM}")
        try:
            child = Child.adopt(interface, process[0])
        except OSError as error:
            raise WireGuardError(error.errno, f"{PROGRAM}: {error.strerror}") from None
        return WireGuardGoDevice(interface, process[1], child, self._netlink, self._sockets)


class WireGuardGoDevice:
    """An interface with its process. `name` is that by which it was made."""

    def __init__(self, interface: str, name: str, child: Child, netlink: Netlink, sockets: Path) -> None:
        self.interface = interface
        self.socket = sockets / f"{name}.sock"
        self._name = name
        self._child = child
        self._netlink = netlink
        self._port: int | None = None

    @property
    def process(self) -> tuple[int, str]:
        """Its number, and its name."""
        return self._child.pid, self._name

    async def configure(self, config: LinkConfig) -> None:
        """See linux.wireguard.Device."""
        if self._port != config.port and (self._port is not None or (await self.state()).port != config.port):
            need_port(config.port)
        await self._ask(wireguard_uapi.request(config))
        self._port = config.port

    async def state(self) -> LinkState:
        """What it is like now. Raises WireGuardError."""
        return await self._ask(wireguard_uapi.GET)

    async def gone(self) -> None:
        """Wait until its process has ended."""
        await self._child.wait()

    async def remove(self) -> None:
        """End its process, with which the interface goes."""
        await self._child.stop()
        with contextlib.suppress(OSError):
            self.socket.unlink()

    async def _ask(self, request: bytes) -> LinkState:
        try:
            async with asyncio.timeout(ANSWER_TIME):
                reader, writer = await asyncio.open_unix_connection(self.socket, limit=wireguard_uapi.ANSWER_LIMIT)
                try:
                    writer.write(request)
                    answer = await reader.readuntil(b"\n\n")
                finally:
                    writer.close()
            return wireguard_uapi.read(answer)
        except UapiError as error:
            raise WireGuardError(error.errno or None, f"{self.interface}: {PROGRAM}: {error}") from None
        except TimeoutError:
            raise WireGuardError(None, f"{self.interface}: {PROGRAM} does not answer") from None
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise WireGuardError(None, f"{self.interface}: {PROGRAM} does not answer as it should") from None
        except OSError as error:
            ended = "" if self._child.running else f" ({status_text(await self._child.wait())})"
            raise WireGuardError(error.errno, f"{self.interface}: {PROGRAM}: {error.strerror}{ended}") from None
