"""How the registry reaches the mesh: through the node beside it (wire.md section 7).

Questions are datagrams to [::1]:326; the node answers them itself, or relays them. The registry asks the node's control
socket which prefixes have a route. If there is no node, every question is soon answered by None.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Network
from pathlib import Path

from re6st.babeld.binary_socket import read_dump
from re6st.babeld.talk import Talk
from re6st.core.machine.uplink_numbers import LIMIT
from re6st.core.prefix import Prefix, PrefixError, prefix_of
from re6st.core.routing.babel_lines import LineError, Table
from re6st.core.routing.told_claims import ToldClaims, read_claims
from re6st.core.wire.datagrams import PORT, Code
from re6st.service.run_names import BABELD_SOCKET, BINARY_SOCKET, CONTROL_SOCKET

logger = logging.getLogger("localnode")

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)
"""The name of a line to the Internet, and its state."""

TIMEOUT = 3.0
RESEND = 0.4
"""While a node opens a session with the peer, it drops what it cannot relay, so questions are repeated (wire.md 12)."""
DUMP_TIMEOUT = 2.0
REQUEST = b'{"protocol": 1, "operation": "reachable"}\n'
ANSWER_LIMIT = 4 << 20
"""Bytes of the node's answer: a hundred thousand nodes have about 1 MB."""
SURVEY_LIMIT = 100_000
"""Number of nodes that one survey asks."""
WINDOW = 48
"""Number of nodes that a survey asks at the same time. The node relays 64 questions or more, and others need some of
them.
"""
SILENCE = 4
"""A survey is given up if no answer comes for so many times the patience for one node."""

Listener = Callable[[bytes], None]


@dataclass(slots=True)
class _SurveyQuestion:
    """A node that a survey asks. Times are those of the event loop."""

    listener: Listener
    send_at: float
    until: float


class LocalNode:
    """The node on this host. Its socket is opened when it is first needed, and again after a failure."""

    def __init__(self, network: IPv6Network, control: Path, address: tuple[str, int] = ("::1", PORT)) -> None:
        self.network = network
        self._control = control
        self._address = address
        self.claims = ToldClaims()
        """What the node told about who claims what, when it was last asked for its routes."""
        self.late = False
        """Whether it said then that these routes are old: it reads its babeld too slowly."""
        self.by_capacity: frozenset[Prefix] | None = None
        """The nodes that its bulk traffic gets to by capacity, as it said then; None where all of it goes by latency.
        """
        self.uplinks: Mapping[str, str] = {}
        """Its lines to the Internet and the state of each, where its tunnels are bound to them."""
        self._socket: socket.socket | None = None
        self._listeners: dict[tuple[Prefix, int], list[Listener]] = {}

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    # --- questions ---

    def tell(self, prefix: Prefix, code: Code) -> None:
        """Send a message that has no answer, if possible."""
        self._send(prefix, code)

    async def ask(self, prefix: Prefix, code: Code, timeout: float = TIMEOUT) -> bytes | None:
        """The answer of a node; None if there is none within `timeout` seconds, or no local node."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def listener(answer: bytes) -> None:
            if not future.done():
                future.set_result(answer)

        self._listen(prefix, code, listener)
        try:
            async with asyncio.timeout(timeout):
                while not future.done():
                    self._send(prefix, code)
                    await asyncio.wait((future,), timeout=RESEND)
            return future.result() or None
        except TimeoutError:
            return None
        finally:
            self._unlisten(prefix, code, listener)

    async def survey(
        self,
        start: Iterable[Prefix],
        code: Code,
        follow: Callable[[Prefix, bytes], Iterable[Prefix]] | None = None,
        quiet: float = TIMEOUT,
    ) -> dict[Prefix, bytes | None]:
        """Ask many nodes, and those that `follow` finds in an answer; None for a node that does not answer.

        A few are asked at the same time, and the next ones as answers come, so the node beside us and the network set
        the pace. A node that says nothing for `quiet` seconds is given up. The survey ends when all were asked, or when
        nobody has answered for SILENCE times as long.
        """
        loop = asyncio.get_running_loop()
        answers: dict[Prefix, bytes | None] = {}
        pending: deque[Prefix] = deque()
        waiting: dict[Prefix, _SurveyQuestion] = {}
        queue: asyncio.Queue[tuple[Prefix, bytes]] = asyncio.Queue()

        def put(prefix: Prefix, answer: bytes) -> None:
            queue.put_nowait((prefix, answer))

        def add(prefixes: Iterable[Prefix]) -> None:
            new = [each for each in dict.fromkeys(prefixes) if each not in answers]
            new = new[: SURVEY_LIMIT - len(answers)]
            answers.update(dict.fromkeys(new))
            pending.extend(new)

        def done(prefix: Prefix) -> None:
            self._unlisten(prefix, code, waiting.pop(prefix).listener)

        try:
            add(start)
            heard = loop.time()
            while (pending or waiting) and (now := loop.time()) < heard + SILENCE * quiet:
                for prefix in [prefix for prefix, question in waiting.items() if question.until <= now]:
                    done(prefix)
                while pending and len(waiting) < WINDOW:
                    prefix = pending.popleft()
                    waiting[prefix] = _SurveyQuestion(partial(put, prefix), now, now + quiet)
                    self._listen(prefix, code, waiting[prefix].listener)
                for prefix, question in waiting.items():
                    if question.send_at <= now:
                        question.send_at = now + RESEND
                        self._send(prefix, code)
                if not waiting:
                    continue
                wait = min(min(question.send_at, question.until) for question in waiting.values()) - now
                try:
                    async with asyncio.timeout(wait):
                        prefix, answer = await queue.get()
                except TimeoutError:
                    continue
                if not answer:  # the local node is not there
                    break
                if prefix in waiting:
                    done(prefix)
                    answers[prefix] = answer
                    heard = loop.time()
                    add(follow(prefix, answer) if follow else ())
            return answers
        finally:
            for prefix in list(waiting):
                done(prefix)

    # --- routes ---

    async def routed(self) -> list[Prefix]:
        """The prefixes to which babeld has a usable route; empty if there is no babeld."""
        return await self.routes() or []

    async def routes(self) -> list[Prefix] | None:
        """The prefixes to which babeld has a usable route; None if there is no babeld.

        We ask the node, since babeld allows few connections. We ask its babeld only if the node cannot tell: the last
        release, or the older software, whose babeld does not speak the text protocol (wire.md 9.6).
        """
        reasons = []
        self.claims, self.late, self.by_capacity, self.uplinks = ToldClaims(), False, None, {}
        for name, read in ((CONTROL_SOCKET, self._told), (BABELD_SOCKET, self._text), (BINARY_SOCKET, self._binary)):
            path = self._control.with_name(name)
            try:
                async with asyncio.timeout(DUMP_TIMEOUT):
                    return list(dict.fromkeys(await read(path)))
            except (OSError, ValueError, EOFError) as error:
                reasons.append(f"{path}: {error or type(error).__name__}")
        logger.info("cannot read the routes of the registry's own node: %s", "; ".join(reasons))
        return None

    async def _told(self, path: Path) -> list[Prefix]:
        """The answer of a node of ours. Raises OSError, EOFError, ValueError."""
        reader, writer = await asyncio.open_unix_connection(str(path), limit=ANSWER_LIMIT)
        try:
            writer.write(REQUEST)
            line = await reader.readline()
        finally:
            writer.close()
        if not line.endswith(b"\n"):
            raise EOFError("the node hung up")
        told = read_routes(line)
        self.claims, self.late, self.by_capacity = told.claims, told.late, told.by_capacity
        self.uplinks = told.uplinks
        return told.reachable

    async def _text(self, path: Path) -> list[Prefix]:
        """The prefixes to which a stock babeld has usable routes. Raises OSError, EOFError, ValueError."""
        talk, table = await Talk.open(path), Table()

        def take(line: str) -> None:
            try:
                table.feed(line)
            except LineError as error:
                logger.debug("babeld: %s", error)

        try:
            await talk.greeting()
            await talk.ask("dump", take)
        finally:
            talk.close()
        return self._prefixes(route.destination for route in table.routes.values() if route.usable)

    async def _binary(self, path: Path) -> list[Prefix]:
        """The prefixes to which the older babeld has usable routes. Raises OSError, EOFError, BinaryError."""
        return self._prefixes(route.destination for route in (await read_dump(path)).routes if route.usable)

    def _prefixes(self, destinations: Iterable[IPv6Network]) -> list[Prefix]:
        found = [prefix_of(self.network, destination) for destination in destinations]
        return [prefix for prefix in found if prefix is not None]

    # --- the socket ---

    def _send(self, prefix: Prefix, code: Code) -> None:
        try:
            if self._socket is None:
                self._socket = self._open()
            self._socket.send(prefix.bits.encode("ascii") + bytes((0, code)))
        except BlockingIOError:
            pass  # lost, as any datagram may be
        except OSError as error:
            self._fail(error)

    def _open(self) -> socket.socket:
        """A connected socket: only datagrams of the node come in, and we notice if there is no node."""
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            opened.connect(self._address)
        except OSError:
            opened.close()
            raise
        asyncio.get_running_loop().add_reader(opened, self._receive, opened)
        return opened

    def _receive(self, opened: socket.socket) -> None:
        try:
            data = opened.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        bits, separator, rest = data.partition(b"\0")
        try:
            prefix = Prefix.from_bits(bits.decode("ascii"))
        except (PrefixError, UnicodeDecodeError):
            return
        if separator and len(rest) > 1:
            self._answer(self._listeners.get((prefix, rest[0]), ()), _unquoted(rest[1:]))

    def _fail(self, error: OSError) -> None:
        """There is no node, so no question will be answered."""
        logger.info("the registry's own node does not answer at [%s]:%d: %s", *self._address, error.strerror)
        for listeners in tuple(self._listeners.values()):
            self._answer(listeners, b"")

    def _answer(self, listeners: Iterable[Listener], answer: bytes) -> None:
        for listener in tuple(listeners):
            listener(answer)

    def _listen(self, prefix: Prefix, code: Code, listener: Listener) -> None:
        self._listeners.setdefault((prefix, code), []).append(listener)

    def _unlisten(self, prefix: Prefix, code: Code, listener: Listener) -> None:
        listeners = self._listeners[prefix, code]
        listeners.remove(listener)
        if not listeners:
            del self._listeners[prefix, code]


def _unquoted(answer: bytes) -> bytes:
    """The answer itself: re6stnet 0.642 relays it as Python prints bytes, between b' and '. It is plain text then.

    Remove this when no registry has a node of that release beside it.
    """
    is_quoted = len(answer) > 3 and answer.startswith(b"b'") and answer.endswith(b"'") and b"\\" not in answer
    return answer[2:-1] if is_quoted else answer


@dataclass(frozen=True, slots=True)
class ToldRoutes:
    """What a node of ours says of its routes: who can be reached, who claims what, and whether this is old; where it
    has two routing planes, whom bulk traffic gets to by capacity; and how its lines to the Internet are, if it has
    several."""

    reachable: list[Prefix]
    claims: ToldClaims
    late: bool
    by_capacity: frozenset[Prefix] | None = None
    uplinks: Mapping[str, str] = field(default_factory=dict)


def read_routes(line: bytes) -> ToldRoutes:
    """The answer of a node of ours. Raises ValueError."""
    try:
        answer = json.loads(line)
        result = answer.get("result")
        if result is None:
            raise ValueError(answer["error"]["message"])
        if result["running"] is not True:
            raise ValueError("babeld is not running")
        reachable = [Prefix.from_cn(cn) for cn in result["reachable"]]
        bulk = result.get("by_capacity")
        by_capacity = None if bulk is None else frozenset(Prefix.from_cn(cn) for cn in bulk)
        claims, late, uplinks = read_claims(result.get("claims")), result.get("late") is True, result.get("uplinks")
        return ToldRoutes(reachable, claims, late, by_capacity, _read_uplinks(uplinks or {}))
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("not an answer of a node") from None


def _read_uplinks(told: Mapping[str, object]) -> dict[str, str]:
    """The lines of a node, by name, and how each is, in a word. Raises ValueError, AttributeError."""
    found = {name: state for name, state in told.items() if isinstance(state, str)}
    if len(told) > LIMIT or len(found) < len(told) or not all(map(_WORD.fullmatch, (*found, *found.values()))):
        raise ValueError("these are not the lines of a node")
    return found
