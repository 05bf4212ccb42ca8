"""One call to the registry as it came in, what its arguments must be, and how it is refused (wire.md 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from re6st.core.prefix import Prefix, PrefixError
from re6st.core.registry.sessions import HelloClaims, Session
from re6st.core.wire import extensions, offers
from re6st.core.wire.extensions import ExtensionError
from re6st.core.wire.offers import OfferError
from re6st.registryd.hello import read_offer

TEXT_LIMIT = 256
"""Maximum number of characters of an e-mail address, a token, a CN."""
SERIAL_DIGITS = 18
PROTOCOL_LIMIT = 1 << 20


class RpcError(Exception):
    """A call that is refused; `status` as in wire.md 3.1, the text is for the log, `headers` are for the caller."""

    def __init__(self, status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted call. `source` is a stranger's network, for the limits; None for an authorized origin."""

    method: str
    arguments: Mapping[str, str]
    source: str | None
    caller: Prefix | None = None
    """The caller of a method that needs a session."""
    session: Session | None = None
    address: str = ""
    """The client's address, as far as it can be known."""
    offer: str = ""
    """The header of a hello from a node of our software."""

    def text(self, name: str) -> str:
        """An argument that must be a short text. Raises RpcError."""
        value = self.arguments[name]
        if not 0 < len(value) <= TEXT_LIMIT or not value.isprintable():
            raise RpcError(HTTPStatus.BAD_REQUEST, f"parameter {name} is empty, too long or not text")
        return value


def too_many(call: Call) -> RpcError:
    return RpcError(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"too many calls of {call.method} from {call.address}, or from all addresses together",
    )


def read_prefix(bits: str) -> Prefix:
    """The prefix of a caller. Raises RpcError; the empty prefix belongs to nobody."""
    try:
        prefix = Prefix.from_bits(bits)
    except PrefixError as error:
        raise RpcError(HTTPStatus.BAD_REQUEST, f"prefix {error}") from None
    if not prefix.length:
        raise RpcError(HTTPStatus.BAD_REQUEST, "the prefix of the caller is empty")
    return prefix


def read_claims(call: Call) -> HelloClaims:
    """What a hello says about its sender. Raises RpcError."""
    protocol = read_integer(call.arguments.get("protocol", "1"), PROTOCOL_LIMIT)
    if not call.offer:
        return HelloClaims(protocol)
    try:
        offer = read_offer(call.offer)
        return HelloClaims(protocol, extensions.read(offer.names), offers.encode(offer))
    except (OfferError, ExtensionError) as error:
        raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None


def read_integer(text: str, limit: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= SERIAL_DIGITS and int(text) < limit):
        raise RpcError(HTTPStatus.BAD_REQUEST, f"{text[:40]!r} is not a number below {limit}")
    return int(text)


def caller_of(call: Call) -> Prefix:
    if call.caller is None:
        raise RpcError(HTTPStatus.UNAUTHORIZED, f"{call.method} needs a session")
    return call.caller
