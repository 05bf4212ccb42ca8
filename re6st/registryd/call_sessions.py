"""The sessions of nodes (core/registry/sessions.py): in memory where one registry serves a state, else where all find
them, since a node may say hello to one registry and call another.

Shared sessions are sealed with a key that only registries have, as it comes from the CA's. So whoever reads the
database, or a copy of it, cannot call in a node's name, nor read the answers that a node got.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.sessions import CallSessions, ClientSessions, HelloClaims, PendingSession, Session
from re6st.core.wire.offers import expand
from re6st.core.wire.rpc import CallKeys, Ratchet, SealedRatchet
from re6st.keys import sealing
from re6st.registryd.repository import Repository, RepositoryError, SharedState

logger = logging.getLogger("registry")

T = TypeVar("T")

NONCE_LENGTH = 12
PURPOSE = b"re6st sessions that several registries share"
"""What the CA's key signs to make a key: nothing that it signs for others begins like this."""


class NodeSessions(Protocol):
    """Those of all clients. Each coroutine but `drop` raises RepositoryError."""

    async def pending_answer(self, prefix: Prefix, claims: HelloClaims, source: str, now: float) -> bytes | None:
        """As `CallSessions.pending_answer`."""

    async def start(
        self, prefix: Prefix, claims: HelloClaims, source: str, keys: CallKeys, answer: bytes, now: float
    ) -> None:
        """As `CallSessions.start`."""

    async def check(self, prefix: Prefix, message: bytes, header: str) -> tuple[bool, Session | None]:
        """Whether the client has sessions, and the one whose key fits, as in `CallSessions.check`."""

    async def refused(self, prefix: Prefix, session: Session) -> None:
        """The call that `check` has found got no answer with this session's key."""

    async def drop(self, prefix: Prefix) -> None:
        """As `CallSessions.drop`, after a change of the certificate, which has been made by now: what depends on that
        goes on if this fails.
        """


def sessions_of(repository: Repository, authority: cert.Authority) -> NodeSessions:
    return OwnSessions() if repository.shared is None else SharedSessions(repository.shared, authority)


class OwnSessions:
    """Those of a registry that nobody shares its state with."""

    def __init__(self) -> None:
        self._sessions = CallSessions()

    async def pending_answer(self, prefix: Prefix, claims: HelloClaims, source: str, now: float) -> bytes | None:
        return self._sessions.pending_answer(prefix, claims, source, now)

    async def start(
        self, prefix: Prefix, claims: HelloClaims, source: str, keys: CallKeys, answer: bytes, now: float
    ) -> None:
        self._sessions.start(prefix, claims, source, keys, answer, now)

    async def check(self, prefix: Prefix, message: bytes, header: str) -> tuple[bool, Session | None]:
        return self._sessions.known(prefix), self._sessions.check(prefix, message, header)

    async def refused(self, prefix: Prefix, session: Session) -> None:
        """The session's keys, which are those here, have not moved on."""

    async def drop(self, prefix: Prefix) -> None:
        self._sessions.drop(prefix)


class SharedSessions:
    """Those that several registries share.

    The keys of a session move on with its answer too, after `check`. So they are stored as they will be then, and put
    back if the call is refused. If a registry is killed in between, the node says hello again, as it does if one that
    serves alone is started again.
    """

    def __init__(self, shared: SharedState, authority: cert.Authority) -> None:
        self._shared = shared
        self._key = hashlib.sha256(cert.sign(authority.key, PURPOSE)).digest()

    async def pending_answer(self, prefix: Prefix, claims: HelloClaims, source: str, now: float) -> bytes | None:
        return await self._change(prefix, lambda sessions: sessions.pending_answer(prefix, claims, source, now))

    async def start(
        self, prefix: Prefix, claims: HelloClaims, source: str, keys: CallKeys, answer: bytes, now: float
    ) -> None:
        await self._change(prefix, lambda sessions: sessions.start(prefix, claims, source, keys, answer, now))

    async def check(self, prefix: Prefix, message: bytes, header: str) -> tuple[bool, Session | None]:
        def change(sessions: CallSessions) -> tuple[bool, Session | None]:
            known = sessions.known(prefix)
            found = sessions.check(prefix, message, header)
            if found is not None:
                sessions.put(prefix, ClientSessions(Session(found.keys.answered(), found.claims)))
            return known, found

        return await self._change(prefix, change)

    async def refused(self, prefix: Prefix, session: Session) -> None:
        then = session.keys.answered().secret

        def change(sessions: CallSessions) -> None:
            now = sessions.of_client(prefix)
            if now.confirmed is not None and now.confirmed.keys.secret == then:
                sessions.put(prefix, ClientSessions(session, now.pending))

        await self._change(prefix, change)

    async def drop(self, prefix: Prefix) -> None:
        try:
            await self._change(prefix, lambda sessions: sessions.drop(prefix))
        except RepositoryError as error:
            logger.warning("sessions of %s were ended with its certificate's change only: %s", prefix, error)

    async def _change(self, prefix: Prefix, change: Callable[[CallSessions], T]) -> T:
        associated = prefix.bits.encode("ascii")

        def changed(stored: bytes | None) -> tuple[bytes | None, T]:
            sessions = CallSessions()
            before = ClientSessions() if stored is None else self._open(stored, associated)
            sessions.put(prefix, before)
            result = change(sessions)
            after = sessions.of_client(prefix)
            if after == before:
                return stored, result
            return None if after == ClientSessions() else self._seal(after, associated), result

        return await self._shared.change_sessions(prefix, changed)

    def _seal(self, sessions: ClientSessions, associated: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_LENGTH)
        key = expand(self._key, nonce.hex())  # one for each message, since chance of 12 bytes could come twice
        return nonce + sealing.CIPHER.seal(key, 0, to_json(sessions), associated)

    def _open(self, stored: bytes, associated: bytes) -> ClientSessions:
        """None of them, if it was not one of our registries that stored them."""
        key = expand(self._key, stored[:NONCE_LENGTH].hex())
        text = sealing.CIPHER.open(key, 0, stored[NONCE_LENGTH:], associated)
        return ClientSessions() if text is None else from_json(text)


def to_json(sessions: ClientSessions) -> bytes:
    """A client's sessions as text."""
    confirmed = sessions.confirmed
    record = {
        "confirmed": None if confirmed is None else _session(confirmed),
        "pending": [
            {
                "session": _session(each.session),
                "source": each.source,
                "answer": _text(each.answer),
                "since": each.since,
            }
            for each in sessions.pending
        ],
    }
    return json.dumps(record, separators=(",", ":")).encode()


def from_json(text: bytes) -> ClientSessions:
    """The sessions in what `to_json` made."""
    record = json.loads(text)
    confirmed = record["confirmed"]
    return ClientSessions(
        None if confirmed is None else _read_session(confirmed),
        tuple(
            PendingSession(
                _read_session(each["session"]), each["source"], base64.b64decode(each["answer"]), each["since"]
            )
            for each in record["pending"]
        ),
    )


def _session(session: Session) -> dict[str, Any]:
    return {
        "sealed": isinstance(session.keys, SealedRatchet),
        "secret": _text(session.keys.secret),
        "protocol": session.claims.protocol,
        "extensions": sorted(session.claims.extensions),
        "offer": _text(session.claims.offer),
    }


def _read_session(record: dict[str, Any]) -> Session:
    secret = base64.b64decode(record["secret"])
    keys = SealedRatchet(secret, sealing.CIPHER) if record["sealed"] else Ratchet(secret)
    offer = base64.b64decode(record["offer"])
    return Session(keys, HelloClaims(record["protocol"], frozenset(record["extensions"]), offer))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
