"""The registry's client: public calls, and calls in a session, over HTTP or HTTPS (wire.md section 3).

A node gives its identity and can call every method. Without an identity only the public calls work, which is enough to
enrol. Every answer is limited in size, and an answer without the right signature is an error. Any failure is a
`RegistryError`, whose text is for the user; callers decide when to try again.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from http import HTTPStatus
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import PROTOCOL, __version__, cert
from re6st.client import http
from re6st.client.answered_hellos import AnsweredHellos
from re6st.client.registries import AWAY, NoAnswer, Registries
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.wire import extensions, offers
from re6st.core.wire.extensions import KNOWN, ExtensionError
from re6st.core.wire.offers import Offer, OfferError
from re6st.core.wire.rpc import (
    CALLS_PURPOSE,
    CLIENT_PURPOSE,
    HEADER,
    METHODS,
    NONCE_LENGTH,
    OFFER_HEADER,
    OFFER_MARK,
    REGISTRY_PURPOSE,
    SECRET_LENGTH,
    TAG_LENGTH,
    UNKNOWN_HEADER,
    UNKNOWN_PURPOSE,
    Access,
    CallKeys,
    Ratchet,
    SealedRatchet,
    target,
)
from re6st.keys import pki, sealing

TIMEOUT = 60.0
"""Seconds for one exchange, from the name lookup to the last byte (wire.md 3.1)."""
ANSWER_LIMIT = 1 << 20
"""Bytes of an answer: parameters with 100,000 revoked serials have fewer."""
# Not by the module platform, which starts uname(1), and whose text says nothing more that matters.
PLATFORM = f"{os.uname().sysname}-{os.uname().release}-{os.uname().machine}"
USER_AGENT = f"re6stnet/{__version__}, {PLATFORM}"

HELLOS = 3
"""How often one call says hello, unless there are more registries."""
_REPEATABLE = {name for name, method in METHODS.items() if method.access is Access.NODE} - {"rekeyCertificate"} | {
    *("hello", "getCa", "presentCertificate")
}
"""Calls that may be sent again, to another registry, though one may have received them."""

_OF_PROXIES = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""Statuses that no registry gives, but proxies do."""

_FINAL = (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
"""Statuses that each registry of a network would give."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class RegistryError(Exception):
    """A call without a result; the text names the registry, and tells the user the cause."""


class RegistryUnreachable(RegistryError):
    """There was no connection, or it broke off before the answer was complete."""


class RegistryRefused(RegistryError):
    """The answer has an error status. If it is `proven`, it is from the registry, else perhaps from a proxy."""

    def __init__(self, message: str, status: int, *, proven: bool = False, proof: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.proven = proven
        self.proof = proof
        """The part of the answer that may prove this."""


class RegistryAnswerError(RegistryError):
    """An answer that is not signed, too large, or not one to this method."""


class RegistryKeyError(RegistryAnswerError):
    """The registry has a certificate for another key."""


class RegistryClient:
    """Calls the registry at `url`; of several URLs, the one that it uses, or the next one that answers.

    `identity` says who we are in session calls; it may be replaced after a renewal. `key` is used instead of the
    identity's key, if the registry has accepted a new key for which we have no certificate yet.

    Session calls are made one at a time, so tasks may share a client. Raises RegistryError for an invalid URL.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        identity: cert.Identity | None = None,
        *,
        key: rsa.RSAPrivateKey | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.registries = Registries([parse_url(each) for each in ([url] if isinstance(url, str) else url)], timeout)
        self.identity = identity
        self._key = key
        self.refused = False
        """In its last answer, the registry said that it has no certificate of ours: revoked, or expired long ago."""
        self.likely_refused = False
        """An answer said so without proof, since older registries cannot prove it; and it is our registry: see
        `witness`.
        """
        self.witness: Prefix | None = None
        """A node that the registry certainly knows."""
        self.hellos: AnsweredHellos | None = None
        """Remembers earlier sessions, so that nobody can replay them to us."""
        self.expected: Set[str] = frozenset()
        """Extensions that this registry once had: if it lacks one now, this is logged."""
        self.required: Set[str] = frozenset()
        """Extensions without which we do not use the registry."""
        self.clock_ahead: float | None = None
        """By how many seconds its clock is ahead of ours, from its last authentic answer."""
        self._told_time: float | None = None
        self._keys: CallKeys | None = None
        self._session_url = self.url
        """The URL of the registry that they are for."""
        self._lock = asyncio.Lock()

    @property
    def url(self) -> str:
        """The URL of the registry that was asked last, without user and password, for messages."""
        return self.registries.asked

    # --- public calls ---

    async def get_ca(self) -> x509.Certificate:
        """The CA certificate. Not authenticated: compare its fingerprint, or ask Trust.renews, before using it."""

        async def ask() -> x509.Certificate:
            return self._load_cert("getCa", await self.call("getCa"))

        return await self._of_any(ask)

    async def request_token(self, email: str) -> None:
        """Make the registry mail a token. RegistryRefused with status 403: it does not mail tokens."""
        await self.call("requestToken", email=email)

    async def request_certificate(
        self, token: str, request: x509.CertificateSigningRequest, location: str = ""
    ) -> x509.Certificate | None:
        """A certificate for the request; an empty token means anonymous. None: the token is unknown or was used."""
        answer = await self.call("requestCertificate", token=token, req=_pem(request), location=location)
        return None if answer is None else self._load_cert("requestCertificate", answer)

    # --- calls in a session ---

    async def get_network_config(self) -> bytes:
        """The compressed network parameters, for `params.decode`."""
        return self._some("getNetworkConfig", await self.call("getNetworkConfig"))

    async def get_bootstrap_peer(self) -> tuple[Prefix, str] | None:
        """A first peer: its prefix, and its address list as text (wire.md 6.6). None: the registry knows none now."""
        answer = await self.call("getBootstrapPeer")
        if answer is None:
            return None
        try:
            text = cert.decrypt(self._identity().key, answer).decode("utf-8")
            bits, separator, addresses = text.partition(" ")
            if not separator:
                raise ValueError(text)
            return Prefix.from_bits(bits), addresses
        except (cert.CertError, PrefixError, ValueError):
            raise self._bad("getBootstrapPeer", "not a peer encrypted for us") from None

    async def renew_certificate(self) -> x509.Certificate:
        """Our certificate, or a new one if it was time for that (wire.md 2.3). It is for our key and prefix, from our
        CA.
        """
        new = self._load_cert("renewCertificate", await self.call("renewCertificate"))
        identity = self._identity()
        ours = pki.same_key(new.public_key(), identity.key.public_key()) and new.subject == identity.cert.subject
        if not ours or not identity.trust.signed(new):
            raise self._bad("renewCertificate", "not a certificate for our key and subnet by our CA")
        return new

    async def rekey_certificate(self, key: rsa.RSAPrivateKey) -> x509.Certificate:
        """A certificate for our subnet and a new key; the present one stays valid. The session ends.

        RegistryRefused with status 400: the registry does not have this call; it runs an older version, or other
        software.
        """
        request = _pem(cert.new_request(key))
        new = self._load_cert("rekeyCertificate", await self.call("rekeyCertificate", req=request))
        identity = self._identity()
        ours = pki.same_key(new.public_key(), key.public_key()) and new.subject == identity.cert.subject
        if not ours or not identity.trust.signed(new):
            raise self._bad("rekeyCertificate", "not a certificate for the new key and our subnet by our CA")
        return new

    async def revoke_superseded(self) -> None:
        """Have all our certificates revoked, except the present one."""
        await self.call("revokeSuperseded")

    async def present_certificate(self, version: bytes = b"") -> bool:
        """Show our certificate, and the version of the parameters that we know, to a registry that may have forgotten
        both because its database was restored from a copy. Returns whether it has stored the certificate again.
        """
        shown = cert.to_pem(self._identity().cert).decode("ascii")
        try:
            await self.call("presentCertificate", cert=shown, version=base64.b64encode(version).decode("ascii"))
        except RegistryError:
            return False
        return True

    async def get_dh(self) -> bytes:
        """The Diffie-Hellman parameters for OpenVPN servers, in PEM form."""
        answer = self._some("getDh", await self.call("getDh"))
        if b"-----BEGIN " not in answer:
            raise self._bad("getDh", "not a PEM file")
        return answer

    async def get_country(self, address: str) -> str | None:
        """Two-letter code of the country of an IP address; None if unknown. Status 400: the registry has no database
        for this.
        """
        answer = await self.call("getCountry", address=address)
        if answer is None:
            return None
        if len(answer) != 2 or not answer.isalpha():
            raise self._bad("getCountry", "not a country code")
        return answer.decode("ascii").upper()

    # --- any call ---

    async def call(self, method: str, **arguments: str) -> bytes | None:
        """Call a method of wire.md 3.4, in a session if it needs one; None for an answer without content.

        `cn` is filled in, and missing parameters are sent empty. Raises RegistryError.
        """
        known = METHODS[method]
        if unknown := arguments.keys() - known.parameters.keys():
            raise TypeError(f"{method} has no parameter {unknown}")
        values = {name: arguments.get(name, "") for name in known.parameters}
        if known.access is not Access.NODE:
            status, body, _ = await self._get(method, target(method, values))
            return None if status == HTTPStatus.NO_CONTENT else body
        values["cn"] = self._identity().prefix.bits
        async with self._lock:
            return await self._call_in_session(method, target(method, values))

    async def _call_in_session(self, method: str, path: str) -> bytes | None:
        """The client's rule of wire.md 3.3: a key is kept only as long as nothing fails.

        A session is with one registry. Where that fails, we greet the next one.
        """
        keys = self._keys if self._session_url == self.registries.preferred else None
        kept = keys is not None
        for left in reversed(range(max(HELLOS, len(self.registries)) + kept)):
            if keys is None:
                keys, self._session_url = await self._of_any(self._hello), self.url
            try:
                return await self._call_once(method, path, keys, patient=not left)
            except RegistryError as error:
                if not left or not self._is_worth_a_hello(method, error, kept=kept):
                    raise
                if isinstance(error, RegistryAnswerError) and not kept:
                    self._pass_over(error)
            keys, kept = None, False
        raise AssertionError("the last try returns or raises")

    def _is_worth_a_hello(self, method: str, error: RegistryError, *, kept: bool) -> bool:
        """Whether a call that failed may go well in another session; `kept`: this one was begun for an earlier call."""
        several = len(self.registries) > 1
        match error:
            case RegistryRefused(status=HTTPStatus.FORBIDDEN):
                return False
            case RegistryRefused(status=HTTPStatus.UNAUTHORIZED):
                return True  # one name may lead to several machines, which learn of a session in turn
            case RegistryRefused():
                return kept or (several and error.status in AWAY and method in _REPEATABLE)
            case RegistryUnreachable():
                return several and method in _REPEATABLE
        return kept or several

    async def _call_once(self, method: str, path: str, keys: CallKeys, *, patient: bool = True) -> bytes | None:
        """Call the registry that was greeted last; whoever is `patient` waits long for the answer."""
        self._keys = None
        signed = {HEADER: keys.sign(path.encode("ascii"))}
        status, body, header = await self._get(method, path, signed, only=self._session_url, patient=patient)
        answer = keys.open(body, header)
        if answer is None:
            raise self._bad(method, f"its {HEADER} is wrong. Does a proxy in between change or cache answers?")
        self._keys, self.clock_ahead = keys, self._told_time
        if self.hellos is not None:
            self.hellos.used()
        self.refused = self.likely_refused = False
        return None if status == HTTPStatus.NO_CONTENT else answer

    async def _of_any(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` brings from the first registry that has it. Raises RegistryError: that of the first one asked."""
        first: RegistryError | None = None
        for _ in range(len(self.registries)):
            try:
                return await ask()
            except RegistryUnreachable as error:  # each was asked
                raise first or error from None
            except RegistryError as error:
                if isinstance(error, RegistryRefused) and (error.proven or error.status in _FINAL):
                    raise
                first = first or error
                self._pass_over(error)
        assert first is not None
        raise first

    def _pass_over(self, error: RegistryError) -> None:
        """The registry that was asked last is of no use now: others are asked before it."""
        self.registries.note_failure(self.url, str(error).removeprefix(f"registry {self.url}: "))

    async def _hello(self) -> CallKeys:
        """Begin a session. If the registry may have forgotten our certificate, show it the certificate first."""
        try:
            return await self._greet()
        except (RegistryRefused, RegistryKeyError) as error:
            if isinstance(error, RegistryRefused) and error.status != HTTPStatus.NOT_FOUND:
                raise
            if not await self.present_certificate():
                self.refused = isinstance(error, RegistryKeyError) or error.proven
                self.likely_refused = not self.refused and await self._greets_the_witness()
                if self.likely_refused:
                    raise RegistryRefused(f"registry {self.url}: {self._likely()}", HTTPStatus.NOT_FOUND) from None
                raise
        return await self._greet()

    async def greet(self) -> None:
        """Only say hello. Raises RegistryError: RegistryRefused for an unknown CN, RegistryKeyError for another key."""
        async with self._lock:
            self._keys, self._session_url = await self._greet(), self.url

    async def _greet(self) -> CallKeys:
        """Offer a session with forward secrecy. A registry of other software ignores the offer."""
        identity = self._identity()
        path = target("hello", {"client_prefix": identity.prefix.bits, "protocol": str(PROTOCOL)})
        key = sealing.SessionKey()
        offer = self._offer(key.public)
        try:
            header = base64.b64encode(offers.encode(offer)).decode("ascii")
            _, body, _ = await self._get("hello", path, {OFFER_HEADER: header})
        except RegistryRefused as error:
            if error.status == HTTPStatus.CONFLICT:
                raise self._other_key("our offer is not signed by the key that it knows") from None
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            raise self._unknown(offer, error) from None
        if body.startswith(OFFER_MARK):
            return self._answered(key, offer, body[len(OFFER_MARK) :])
        self._learn(frozenset())
        return self._greeted(body)

    def _unknown(self, ours: Offer, error: RegistryRefused) -> RegistryRefused:
        """The error for a hello that got status 404: from our registry, or from something in its place. A node that
        enrols again loses its subnet.
        """
        identity = self._identity()
        ca, prefix = identity.trust.ca, identity.prefix
        said = offers.statement(UNKNOWN_PURPOSE, (sealing.key_text(ca), prefix.bits.encode("ascii")), ours)
        try:
            signature = base64.b64decode(error.proof, validate=True)
        except ValueError:
            signature = b""
        if proven := bool(signature) and sealing.verify(cert.key_of_cert(ca), signature, said):
            cause = (
                f"it does not know {prefix.cn}: revoked, or expired long ago. Ask its operator for an invitation,"
                " and join again with re6st-conf join."
            )
        else:
            cause = (
                f"404 Not Found, and nothing proves that the registry said so. Check --registry, and a proxy before it;"
                f" the operator can see whether it knows {prefix}."
            )
        return RegistryRefused(f"registry {self.url}: {cause}", error.status, proven=proven)

    async def _greets_the_witness(self) -> bool:
        """Whether it is our registry, which answers to others what only our registry can (wire.md 3.3).

        Nobody uses the session that this begins, and it ends no other one (wire.md 3.3 point 4). An answer that
        somebody recorded would show the same, so only the text of an error depends on this.
        """
        if self.witness in (None, self._identity().prefix):
            return False
        path = target("hello", {"client_prefix": self.witness.bits, "protocol": str(PROTOCOL)})
        try:
            _, body, _ = await self._get("hello", path)
        except RegistryError:
            return False
        half = len(body) // 2
        return half > 0 and cert.verify(self._identity().trust.ca, body[half:], body[:half])

    def _likely(self) -> str:
        return (
            f"it answers {self.witness}, but does not know {self._identity().prefix}: likely that was revoked, or"
            " expired long ago. The older software, which it runs, cannot prove that: ask its operator before you"
            " change anything here."
        )

    def _offer(self, public: bytes) -> Offer:
        """Our offer, signed."""
        identity = self._identity()
        key = self._key or identity.key
        offer = Offer(public, extensions.text(KNOWN))
        parties = (sealing.key_text(identity.trust.ca), identity.prefix.bits.encode("ascii"))
        return offer.signed_by(sealing.sign(key, offers.statement(CLIENT_PURPOSE, parties, offer)))

    def _answered(self, key: sealing.SessionKey, ours: Offer, answer: bytes) -> CallKeys:
        """The session with a registry of our software. Raises RegistryAnswerError."""
        trust = self._identity().trust
        try:
            nonce, theirs = answer[:NONCE_LENGTH], offers.decode(answer[NONCE_LENGTH:-TAG_LENGTH])
            said = offers.statement(REGISTRY_PURPOSE, (sealing.key_text(trust.ca),), theirs)
            if not sealing.verify(cert.key_of_cert(trust.ca), theirs.signature, said):
                raise self._bad("hello", "not signed by our CA. Is this the registry of our network?")
            secret = offers.session_key(CALLS_PURPOSE, key.shared(theirs.public), ours, theirs, nonce)
            names = extensions.read(theirs.names)
        except (OfferError, ExtensionError) as error:
            raise self._bad("hello", str(error)) from None
        keys = SealedRatchet(secret, sealing.CIPHER)
        if keys.open(b"", base64.b64encode(answer[-TAG_LENGTH:]).decode("ascii")) is None:
            raise self._bad("hello", "it is the answer to somebody else. Does a proxy in between answer from a cache?")
        self._learn(names)
        return keys

    def _greeted(self, body: bytes) -> CallKeys:
        """The session with the deployed software (wire.md 3.3). Raises RegistryAnswerError."""
        identity = self._identity()
        encrypted, signature = body[: len(body) // 2], body[len(body) // 2 :]
        if not cert.verify(identity.trust.ca, signature, encrypted):
            raise self._bad("hello", "not signed by our CA. Is this the registry of our network?")
        try:
            secret = cert.decrypt(self._key or identity.key, encrypted)
        except cert.CertError:
            secret = b""
        if len(secret) != SECRET_LENGTH:
            raise self._other_key("not encrypted for our key")
        if self.hellos is not None and not self.hellos.take(body):
            raise self._bad("hello", "it is an old one. Somebody between us and the registry replays it")
        return Ratchet(secret)

    def _learn(self, names: Set[str]) -> None:
        """Check the registry's extensions. Raises RegistryAnswerError if it lacks one that the network requires."""
        if missing := self.required - names:
            cause = f"it lacks what this network requires: {extensions.text(missing)}"
            raise self._bad("hello", f"{cause}. Does it run older software, or is somebody between us?")
        if missing := self.expected - names:
            self.expected = self.expected - missing
            log.warning(
                "registry %s no longer has %s. It was replaced by older software, or somebody changes its answers",
                *(self.url, extensions.text(missing)),
            )

    def _other_key(self, cause: str) -> RegistryKeyError:
        prefix = self._identity().prefix
        return RegistryKeyError(
            f"registry {self.url}: bad answer to hello: {cause}. It has a certificate of another key for {prefix}."
        )

    # --- HTTP ---

    async def _get(
        self, method: str, path: str, more: Mapping[str, str] | None = None, *, only: str = "", patient: bool = False
    ) -> tuple[int, bytes, str]:
        """One request: status (200 or 204), body and Re6stHMAC of the answer. `path` is sent unchanged.

        No registry gets it twice, as that would use a token twice, or break the ratchet.
        """
        # Identity: the HMAC covers the body as it was sent, and nothing may decompress to more than the limit.
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(more or {})}
        sent = time.time()
        try:
            repeatable = method in _REPEATABLE and not patient
            answer = await self.registries.get(path, headers, limit=ANSWER_LIMIT, repeatable=repeatable, only=only)
        except NoAnswer as error:
            raise RegistryUnreachable(str(error)) from None
        except http.TooLong:
            raise self._bad(method, f"longer than {ANSWER_LIMIT} bytes") from None
        self._told_time = http.clock_ahead(answer.headers.get("date", ""), (sent + time.time()) / 2)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            raise self._refused(method, path, answer)
        return answer.status, answer.body, answer.headers.get(HEADER.lower(), "")

    def _refused(self, method: str, path: str, answer: http.Response) -> RegistryRefused:
        words = f"{answer.status} {http.phrase(answer.status)}"
        place = answer.headers.get("location", "").removesuffix(path)
        if 300 <= answer.status < 400 and place:
            # Without the query: it may contain a token.
            cause = f"it redirects to {place.partition('?')[0][:200]!r}. Give that address as --registry."
        elif answer.status in _OF_PROXIES:
            cause = f"{method} refused: {words}. A proxy says so, which cannot reach the registry."
        else:
            cause = f"{method} refused: {words}"
        proof = answer.headers.get(UNKNOWN_HEADER.lower(), "")
        return RegistryRefused(f"registry {self.url}: {cause}", answer.status, proof=proof)

    def _bad(self, method: str, cause: str) -> RegistryAnswerError:
        return RegistryAnswerError(f"registry {self.url}: bad answer to {method}: {cause}")

    def _some(self, method: str, answer: bytes | None) -> bytes:
        if not answer:
            raise self._bad(method, "empty")
        return answer

    def _load_cert(self, method: str, answer: bytes | None) -> x509.Certificate:
        try:
            return cert.load_pem(self._some(method, answer))
        except cert.CertError as error:
            raise self._bad(method, str(error)) from None

    def _identity(self) -> cert.Identity:
        if self.identity is None:
            raise TypeError("this call needs an identity")
        return self.identity


def _pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def parse_url(url: str) -> http.Url:
    """The base URL of a registry's calls, without a final '/' (wire.md 3.1). Raises RegistryError."""
    try:
        return http.parse_url(url)
    except ValueError:
        raise RegistryError(f"registry {url!r}: not of the form http://HOST[:PORT][/PATH]. Check --registry.") from None
