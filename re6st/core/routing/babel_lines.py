"""The text protocol of babeld's local socket, and the table that it describes (wire.md 9.5, babeld(8)).

`parse` reads one line. `Table` keeps the interfaces, neighbours and routes that the lines announce, and says what
changed. A line that cannot be read raises `LineError` and changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Network, IPv6Address, IPv6Network, NetmaskValueError
from typing import TypeVar

INFINITY = 65535
"""A metric or cost from which on a destination is unreachable (RFC 8966 section 3.5.1)."""
NOMINAL = 96
"""Babel's receive cost of a link that loses no packets."""
DRAINED = NOMINAL << 7
"""A metric at least as high as that of a link on which the last seven hellos were missed: it is about to be lost."""

LINE_LIMIT = 1024
ENTRY_LIMIT = 200_000
"""Entries of one kind that we keep: about a hundred routes to each of two thousand nodes."""
CACHE_SIZE = 1 << 16
"""Of texts that are parsed once for all the entries that have them: a network has ten thousands of nodes at most."""


_LOST = f"{INFINITY} "
_DIGITS = re.compile(r"[0-9]{1,5}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)
_REACH = re.compile(r"[0-9a-f]{1,8}", re.ASCII)

T = TypeVar("T")


class LineError(ValueError):
    """A line that does not follow the protocol."""


class Verb(Enum):
    ADD = "add"
    CHANGE = "change"
    FLUSH = "flush"


class Reply(Enum):
    """The line that ends babeld's answer to a command."""

    OK = "ok"
    NO = "no"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class BabelInterface:
    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A router at the other end of a link. `reach` is its history of hellos as bits, the newest on the left; `rtt` is
    in ms, and another with each hello: two that differ in nothing else are equal, as nothing follows from it.
    """

    ident: str
    address: IPv6Address
    interface: str
    reach: int
    rxcost: int
    txcost: int
    cost: int
    rtt: float | None = field(compare=False)
    key: NextHop = field(init=False, compare=False, repr=False)
    """As routes name it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _next_hop(self.address, self.interface))


@dataclass(frozen=True, slots=True)
class NextHop:
    """A neighbour as routes name it: link-local address and interface."""

    address: IPv6Address
    interface: str
    _hash: int = field(init=False, compare=False, repr=False)
    """It is the key of most that is kept for a link, and the hash of an address takes long to work out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.address, self.interface)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Route:
    """A route to an IPv6 destination. If refmetric is 0, the next hop itself owns the destination (wire.md 10.3)."""

    ident: str
    destination: IPv6Network
    source: IPv6Network
    installed: bool
    metric: int
    refmetric: int
    via: NextHop
    router: str = ""
    """The identity of the babeld that originated the route."""

    @property
    def usable(self) -> bool:
        """Whether the route is installed, and its destination reachable: in the kernel, a route of infinite metric is
        an unreachable one.
        """
        return self.installed and self.metric < INFINITY


@dataclass(frozen=True, slots=True)
class Route4:
    """A route to an IPv4 destination; like `Route`."""

    ident: str
    destination: IPv4Network
    installed: bool
    metric: int
    refmetric: int
    via: NextHop
    router: str = ""

    @property
    def usable(self) -> bool:
        """As in `Route`."""
        return self.installed and self.metric < INFINITY


@dataclass(frozen=True, slots=True)
class OtherEntry:
    """A line about something that we do not keep: xroutes."""

    kind: str


Entry = BabelInterface | Neighbour | Route | Route4 | OtherEntry


@dataclass(frozen=True, slots=True)
class Line:
    verb: Verb
    ident: str
    entry: Entry


def parse_reply(line: str) -> Reply | None:
    """The reply that a line is, if it is one; a reason may follow `no`."""
    word = line.split(" ", 1)[0]
    return Reply(word) if word in ("ok", "no", "bad") else None


def parse(line: str) -> Line | None:
    """Read one line of a dump or of an event; None for a line of the greeting. Raises LineError."""
    if len(line) > LINE_LIMIT:
        raise LineError("line too long")
    words = line.split()
    if len(words) >= 2 and words[0] in ("BABEL", "version", "host", "my-id"):
        return None
    try:
        verb, kind, ident = Verb(words[0]), words[1], words[2]
        values = dict(zip(words[3::2], words[4::2], strict=True))
        return Line(verb, ident, _entry(kind, ident, values))
    except (IndexError, KeyError, ValueError) as error:
        raise LineError(f"{line[:200]!r}: {error}") from None


def _entry(kind: str, ident: str, values: dict[str, str]) -> Entry:
    match kind:
        case "interface":
            return BabelInterface(ident, values.get("up") == "true")
        case "neighbour":
            return Neighbour(
                ident=ident,
                address=_address(values["address"]),
                interface=values["if"],
                reach=_reach(values["reach"]),
                rxcost=_metric(values["rxcost"]),
                txcost=_metric(values["txcost"]),
                cost=_metric(values["cost"]),
                rtt=_milliseconds(values["rtt"]) if "rtt" in values else None,
            )
        case "route" if "." not in values["prefix"]:
            return Route(
                ident=ident,
                destination=_network(values["prefix"]),
                source=_network(values["from"]),
                installed=values["installed"] == "yes",
                metric=_metric(values["metric"]),
                refmetric=_metric(values["refmetric"]),
                via=_hop(values["via"], values["if"]),
                router=_router(values.get("id", "")),
            )
        case "route":
            return Route4(
                ident=ident,
                destination=_network4(values["prefix"]),
                installed=values["installed"] == "yes",
                metric=_metric(values["metric"]),
                refmetric=_metric(values["refmetric"]),
                via=_hop(values["via"], values["if"]),
                router=_router(values.get("id", "")),
            )
        case "xroute":
            return OtherEntry(kind)
    raise ValueError(f"unknown kind {kind!r}")


class Table:
    """What babeld knows. The reader of its socket owns it."""

    def __init__(self) -> None:
        self.interfaces: dict[str, BabelInterface] = {}
        self.neighbours: dict[str, Neighbour] = {}
        self.routes: dict[str, Route] = {}
        self.ipv4_routes: dict[str, Route4] = {}

    def feed(self, line: str) -> Line | None:
        """Take in one line, and return it if the table changed. Raises LineError."""
        parsed = parse(line)
        return parsed if parsed is not None and self.take_in(parsed) else None

    def take_in(self, line: Line) -> bool:
        """Take in what a line says; returns whether the table changed. Raises LineError if it has no room."""
        match line.entry:
            case BabelInterface() as entry:
                return _update(self.interfaces, line.verb, line.ident, entry)
            case Neighbour() as entry:
                return _update(self.neighbours, line.verb, line.ident, entry)
            case Route() as entry:
                return _update(self.routes, line.verb, line.ident, entry)
            case Route4() as entry:
                return _update(self.ipv4_routes, line.verb, line.ident, entry)
            case OtherEntry():
                return False

    def is_news(self, line: Line) -> bool:
        """Whether a line says more than other metrics, or that something is about to be lost or lost no more."""
        match line.entry:
            case Route() | Route4() as entry:
                route = self.route(line.ident)
                return route is None or _distress(entry.metric) != _distress(route.metric) or not _is_as(entry, route)
            case Neighbour() as entry:
                known = self.neighbours.get(line.ident)
                return known is None or (entry.cost >= INFINITY) != (known.cost >= INFINITY)
            case BabelInterface() as entry:
                return self.interfaces.get(line.ident) != entry
            case OtherEntry():
                return False

    def measure(self, ident: str, text: str) -> bool:
        """Take in the metrics of a route from a line, beginning with its first number; returns whether they changed.

        Raises LineError.
        """
        route, words = self.route(ident), text.split(" ", 3)
        if route is None:
            return False
        try:
            metric, refmetric = _metric(words[0]), _metric(words[2])
        except (IndexError, ValueError) as error:
            raise LineError(f"metric {text[:200]!r}: {error}") from None
        if (metric, refmetric) == (route.metric, route.refmetric):
            return False
        if isinstance(route, Route):
            self.routes[ident] = replace(route, metric=metric, refmetric=refmetric)
        else:
            self.ipv4_routes[ident] = replace(route, metric=metric, refmetric=refmetric)
        return True

    def route(self, ident: str) -> Route | Route4 | None:
        """The route of that name, to an IPv6 or an IPv4 destination."""
        return self.routes.get(ident) or self.ipv4_routes.get(ident)

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self.interfaces) + len(self.neighbours) + len(self.routes) + len(self.ipv4_routes)

    def clear(self) -> None:
        """Forget everything, because babeld was restarted."""
        self.interfaces.clear()
        self.neighbours.clear()
        self.routes.clear()
        self.ipv4_routes.clear()

    def take(self, other: Table) -> None:
        """Become a copy of another table."""
        self.interfaces, self.neighbours = other.interfaces, other.neighbours
        self.routes, self.ipv4_routes = other.routes, other.ipv4_routes

    def is_up(self, name: str) -> bool:
        """Whether babeld uses the interface of this name."""
        return any(interface.up for interface in self.interfaces.values() if interface.name == name)

    def neighbour_at(self, hop: NextHop) -> Neighbour | None:
        """The neighbour with the address of a next hop. If there are two (an old one may remain after a flush), the one
        with the lower cost.
        """
        found = [n for n in self.neighbours.values() if n.key == hop]
        return min(found, key=lambda n: n.cost, default=None)


class News:
    """Lines that wait to be fed to a table: the last line of each entry.

    With each round-trip time that it measures, babeld reports every route through that neighbour again, because of its
    metric: thousands of lines a second if there are a thousand routes. Nearly all of them say what the line before said
    of the same route, and are left out. The others can wait. What cannot wait is a route that appears, disappears, is
    used, lost or about to be lost.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._urgent: dict[tuple[str, str], str] = {}
        self._late: dict[tuple[str, str], str] = {}
        self._metrics: dict[str, str] = {}
        # Of lines that only told a metric, 64 bits of a hash: they are enough. The first identify the route of a line
        # that has nothing new before its metric; the others are the last line of each route.
        self._same: dict[int, str] = {}
        self._last: dict[str, int] = {}
        self._known: set[int] = set()

    def add(self, line: str) -> None:
        """Raises LineError for a line that is not about an entry."""
        whole = hash(line)
        if whole in self._known:
            return
        head, _, metrics = line.partition(" metric ")
        ident = self._same.get(hash(head))
        if ident is not None and not metrics[4:5].isdigit():  # five digits: the route may be about to be lost
            self._note_metrics(ident, metrics, whole)
            return
        words = line.split(" ", 9)
        if len(words) < 3:
            raise LineError(f"{line[:200]!r}: too short")
        key = words[1], words[2]
        if key in self._urgent or not self._only_metric(line, words):
            if words[1] == "route":
                self._metrics.pop(words[2], None)
                self._forget()  # each route is looked at again before it may wait again
            self._late.pop(key, None)
            self._urgent[key] = line
        elif words[1] == "route" and metrics and not metrics.startswith(_LOST):
            if len(self._same) > len(self._table.routes) + len(self._table.ipv4_routes):
                self._forget()
            self._same[hash(head)] = words[2]
            self._note_metrics(words[2], metrics, whole)
        else:
            self._late[key] = line

    def _note_metrics(self, ident: str, metrics: str, whole: int) -> None:
        self._metrics[ident] = metrics
        self._known.discard(self._last.get(ident, whole))
        self._known.add(whole)
        self._last[ident] = whole

    def _forget(self) -> None:
        self._same.clear()
        self._last.clear()
        self._known.clear()

    @property
    def urgent(self) -> bool:
        """Whether there are lines that cannot wait."""
        return bool(self._urgent)

    def __len__(self) -> int:
        return len(self._urgent) + len(self._late) + len(self._metrics)

    def take(self, *, late: bool) -> list[str]:
        """Lines that are urgent, and those that can wait, if they are asked for."""
        lines = list(self._urgent.values())
        self._urgent.clear()
        if late:
            lines += self._late.values()
            self._late.clear()
        return lines

    def metrics(self) -> dict[str, str]:
        """The other lines that can wait: by the route's identifier, the end of its last line, from the metric on."""
        found, self._metrics = self._metrics, {}
        return found

    def _only_metric(self, line: str, words: list[str]) -> bool:
        verb, kind, ident = words[:3]
        if verb != "change":
            return False
        if kind == "route":
            route = self._table.route(ident)
            if route is None or len(words) != 10 or words[8] != ("yes" if route.installed else "no"):
                return False
            if not words[9].startswith(f"id {route.router} "):
                return False
            metric = line.partition(" metric ")[2].partition(" ")[0]
            return not _DIGITS.fullmatch(metric) or _distress(int(metric)) == _distress(route.metric)
        neighbour = self._table.neighbours.get(ident) if kind == "neighbour" else None
        return neighbour is not None and line.endswith(f" cost {INFINITY}") == (neighbour.cost >= INFINITY)


def _is_as(one: Route | Route4, other: Route | Route4) -> bool:
    """Whether two routes differ in nothing but their metrics."""
    if (one.installed, one.router, one.via) != (other.installed, other.router, other.via):
        return False
    if isinstance(one, Route) and isinstance(other, Route) and one.source != other.source:
        return False
    return one.destination == other.destination


def _distress(metric: int) -> int:
    """0: a normal route; 1: about to be lost; 2: lost."""
    return (metric >= DRAINED) + (metric >= INFINITY)


def _update(table: dict[str, T], verb: Verb, ident: str, entry: T) -> bool:
    if verb is Verb.FLUSH:
        return table.pop(ident, None) is not None
    before = table.get(ident)
    if before is None and len(table) >= ENTRY_LIMIT:
        raise LineError(f"more than {ENTRY_LIMIT} entries")
    table[ident] = entry  # its round-trip time may be another one
    return before != entry


def _metric(text: str) -> int:
    value = int(text) if _DIGITS.fullmatch(text) else -1
    if not 0 <= value <= INFINITY:
        raise ValueError(f"{text!r} is not a metric")
    return value


def _reach(text: str) -> int:
    if not _REACH.fullmatch(text):
        raise ValueError(f"{text!r} is not a history of hellos")
    return int(text, 16)


def _milliseconds(text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} is not a time")
    return float(text)


# The same neighbours and next hops, and the same subnets by every neighbour, come again and again: each is parsed and
# stored only once.
@lru_cache(CACHE_SIZE)
def _hop(address: str, interface: str) -> NextHop:
    return _next_hop(_address(address), interface)


@lru_cache(CACHE_SIZE)
def _next_hop(address: IPv6Address, interface: str) -> NextHop:
    return NextHop(address, interface)


@lru_cache(CACHE_SIZE)
def _router(ident: str) -> str:
    return ident


@lru_cache(CACHE_SIZE)
def _address(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except AddressValueError:
        raise ValueError(f"{text!r} is not an IPv6 address") from None


@lru_cache(CACHE_SIZE)
def _network(text: str) -> IPv6Network:
    try:
        return IPv6Network(text)
    except (AddressValueError, NetmaskValueError):
        raise ValueError(f"{text!r} is not an IPv6 network") from None


@lru_cache(CACHE_SIZE)
def _network4(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except (AddressValueError, NetmaskValueError):
        raise ValueError(f"{text!r} is not an IPv4 network") from None
