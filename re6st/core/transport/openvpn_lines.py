"""The text protocol of OpenVPN's management socket (management-notes.txt of OpenVPN 2.6; design.md section 3).

`Reader` takes lines and returns events. A block of environment variables that follows a notification becomes part of
its event. Only the variables that we use are kept, however many the other end of the tunnel adds (`--push-peer-info`,
`setenv-safe`); those stand before OpenVPN's own. Lines that we do not need return nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from re6st.core.transport.untimely import Untimely, read

LINE_LIMIT = 4096
_HARDWARE = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_ADDRESSES = ("trusted_ip6", "trusted_ip", "untrusted_ip6", "untrusted_ip")
_NUMBER = "X509_0_serialNumber"
USED = frozenset(
    ("common_name", "tls_serial_0", _NUMBER, "tun_mtu", "OPENVPN_external_ip", "OPENVPN_twin", *_ADDRESSES)
)
"""The variables that are kept. The other end can choose names that begin with IV_, UV_ or OPENVPN_, and no others."""


class ClientChange(Enum):
    """What happened to a client of a server."""

    CONNECT = "CONNECT"
    """It asks to be admitted."""
    REAUTH = "REAUTH"
    """It asks again, when keys are renegotiated."""
    ESTABLISHED = "ESTABLISHED"
    DISCONNECT = "DISCONNECT"


@dataclass(frozen=True, slots=True)
class Hold:
    """The process waits for `hold release`."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A new state of the process: CONNECTING, WAIT, AUTH, CONNECTED, RECONNECTING, EXITING..., with a reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Client:
    """A notification of a server about one of its clients. `key` is needed to admit it."""

    change: ClientChange
    ident: int
    key: int | None
    environment: Environment


@dataclass(frozen=True, slots=True)
class ProcessUp:
    """The client process is connected (--management-up-down)."""

    environment: Environment


@dataclass(frozen=True, slots=True)
class ProcessTraffic:
    """Bytes received and sent; on a server, `ident` is the client's; on a client, it is None."""

    ident: int | None
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Fatal:
    """The process ends for this reason."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to a command."""

    success: bool
    text: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A client of a server, from the list that `status 3` prints."""

    ident: int
    common_name: str


@dataclass(frozen=True, slots=True)
class Behind:
    """A hardware address from which packets of a client came, from the same list."""

    hardware: str
    common_name: str


@dataclass(frozen=True, slots=True)
class EndOfList:
    """The list of clients is complete."""


Event = (
    Untimely | Listed | Behind | EndOfList | Hold | ProcessState | Client | ProcessUp | ProcessTraffic | Fatal | Answer
)


class Environment(dict[str, str]):
    """The variables of a block that we use."""

    @property
    def common_name(self) -> str:
        return self.get("common_name", "")

    @property
    def serial(self) -> int | None:
        """Serial number of the other end's certificate."""
        text = self.get("tls_serial_0", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 60 else None

    @property
    def number(self) -> int | None:
        """The node number in the other end's certificate, from which its IPv4 subnet is made (wire.md 1.4)."""
        text = self.get(_NUMBER, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    @property
    def external_ip(self) -> str | None:
        """Our address as the server sees it; servers push it to their clients (wire.md 8.1)."""
        return _ip(self.get("OPENVPN_external_ip", ""))

    @property
    def twin(self) -> str:
        """Where the server at the other end has seen another machine with our certificate; empty if it has not."""
        told = self.get("OPENVPN_twin", "")
        return _ip(told) or "elsewhere" if told else ""

    @property
    def trusted_ip(self) -> str | None:
        """The address of the other end."""
        for name in _ADDRESSES:
            address = _ip(self.get(name, ""))
            if address:
                return address
        return None


class Reader:
    """Turns the lines of one management connection into events."""

    def __init__(self) -> None:
        self._environment: Environment | None = None
        self._head: tuple[str, list[str]] = ("", [])

    def feed(self, line: str) -> Event | None:
        """The event that this line completes, if any. This raises nothing: a line that cannot be read is skipped."""
        line = line[:LINE_LIMIT]
        if not line.startswith(">"):
            for word, success in (("SUCCESS:", True), ("ERROR:", False)):
                if line.startswith(word):
                    return Answer(success, line[len(word) :].strip())
            return _listed(line)
        kind, _, rest = line[1:].partition(":")
        try:
            return self._notification(kind, rest)
        except (ValueError, IndexError):
            return None

    def _notification(self, kind: str, rest: str) -> Event | None:
        if kind in ("CLIENT", "UPDOWN"):
            return self._block(kind, rest)
        fields = rest.split(",")
        match kind:
            case "HOLD":
                return Hold()
            case "STATE":
                return ProcessState(fields[1], fields[2])
            case "BYTECOUNT":
                return ProcessTraffic(None, int(fields[0]), int(fields[1]))
            case "BYTECOUNT_CLI":
                return ProcessTraffic(int(fields[0]), int(fields[1]), int(fields[2]))
            case "FATAL":
                return Fatal(rest[:300])
            case "LOG":
                return read(rest)
        return None

    def _block(self, kind: str, rest: str) -> Event | None:
        if rest == "ENV,END":
            environment, self._environment = self._environment, None
            if environment is None:
                return None
            kind, fields = self._head
            if kind == "UPDOWN":
                return ProcessUp(environment) if fields[0] == "UP" else None
            key = int(fields[2]) if len(fields) > 2 else None
            return Client(ClientChange(fields[0]), int(fields[1]), key, environment)
        if rest.startswith("ENV,"):
            name, _, value = rest[4:].partition("=")
            if self._environment is not None and name in USED:
                self._environment[name] = value
            return None
        fields = rest.split(",")
        if fields[0] == "ADDRESS":  # no environment follows it
            return None
        self._head, self._environment = (kind, fields), Environment()
        return None


def _listed(line: str) -> Listed | Behind | EndOfList | None:
    """A line of the status in the format with tabs; its head names the columns, of which 2.4 to 2.6 have the same."""
    if line == "END":
        return EndOfList()
    fields = line.split("\t")
    if fields[0] == "CLIENT_LIST" and len(fields) > 10 and fields[10].isascii() and fields[10].isdigit():
        return Listed(int(fields[10]), fields[1])
    if fields[0] == "ROUTING_TABLE" and len(fields) > 2 and (found := _HARDWARE.match(fields[1])):  # 2.5 adds @VLAN
        return Behind(found[0], fields[2])
    return None


def _ip(text: str) -> str | None:
    """The address in canonical form; for an IPv4 client of a dual-stack server, OpenVPN prints ::ffff:1.2.3.4.

    An address with a scope (fe80::1%eth0) has no meaning on other machines.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if getattr(address, "scope_id", None) is not None:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
