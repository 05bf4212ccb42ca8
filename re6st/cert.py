"""Certificates: make, sign, verify, encrypt (wire.md 0.1 and section 2).

`Authority` is what the registry has (CA certificate and key), `Trust` what everybody has (the CA certificate),
`Identity` what a node has. All keys are RSA; the primitives are PKCS#1 v1.5 with SHA-512, as the protocol requires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from pathlib import Path

import cryptography
from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

from re6st.core.prefix import Prefix, PrefixError, network_of_serial, serial_of_network
from re6st.keys import pki, requested_name, version1
from re6st.linux import disk
from re6st.view import pasted

VALIDITY = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
"""How long before its end a certificate is renewed (wire.md 2.3)."""
CA_VALIDITY = timedelta(days=3650)
BACKDATED = timedelta(hours=1)
"""How long before its issue a certificate is already valid: the clocks of those who verify it may be so late."""
KEY_SIZES = (2048, 3072, 4096)
PEM_LIMIT = 64 * 1024
_QUICKLY = {"unsafe_skip_rsa_key_validation": True} if int(cryptography.__version__.partition(".")[0]) >= 39 else {}
"""How a key is read without looking whether its primes are primes, which takes 40 ms: it is ours. See `_try_out`."""


class CertError(Exception):
    """A certificate, request or key is damaged, not trusted, or not ours."""


class DamagedKey(CertError):
    """The parts of a private key do not fit together."""


class NotYetValid(CertError):
    """Our own certificate, or the CA's, is not valid yet: the clock is behind."""


# --- reading ---


def load_pem(data: bytes, what: str = "certificate") -> x509.Certificate:
    """The certificate in PEM `data`. Raises CertError, which names `what`."""
    return _load(x509.load_pem_x509_certificate, data, f"{what}: not an RSA certificate in PEM form")


def load_der(data: bytes) -> x509.Certificate:
    """The certificate in DER `data`, with nothing after it. Raises CertError."""
    return _load(x509.load_der_x509_certificate, data, "not an RSA certificate")


def _load(load: Callable[[bytes], x509.Certificate], data: bytes, complaint: str) -> x509.Certificate:
    """Read a certificate, and every part of it that we use: the library parses them late, each with other errors."""
    try:
        cert = load(data)
        _rsa_key(cert.public_key())
        _ = cert.version, cert.serial_number, cert.subject, cert.issuer, cert.signature
        _ = pki.begin_of(cert), pki.end_of(cert)
        return cert
    except Exception as error:  # the parser raises errors of many kinds, and the input is a stranger's
        raise CertError(f"{complaint} ({_first_line(error)})") from None


def load_private_key(data: bytes, what: str = "key") -> rsa.RSAPrivateKey:
    """The RSA key in PEM `data`. Raises CertError."""
    try:
        key = serialization.load_pem_private_key(data, None, **_QUICKLY)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertError(f"{what}: not a private key in PEM form ({_first_line(error)})") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CertError(f"{what}: the key is not RSA")
    if _QUICKLY:
        _try_out(key, what)
    return key


def _try_out(key: rsa.RSAPrivateKey, what: str) -> None:
    """Whether a key fits together: it takes a twentieth of what the library does, which looks whether its primes are
    primes. Raises DamagedKey.
    """
    try:
        key.public_key().verify(
            key.sign(b"", padding.PKCS1v15(), hashes.SHA256()), b"", padding.PKCS1v15(), hashes.SHA256()
        )
    except (InvalidSignature, ValueError, InternalError):  # the last one from versions before 42
        raise DamagedKey(f"{what}: the key is damaged: restore it from its backup") from None


def load_node_key(path: Path) -> rsa.RSAPrivateKey:
    """The key of a node, which can get another one. Raises CertError, which names the file."""
    try:
        return load_private_key(read_file(path), str(path))
    except DamagedKey as error:
        raise DamagedKey(f"{error}, or enrol again") from None


def load_request(data: bytes) -> x509.CertificateSigningRequest:
    """The certificate request in PEM `data`, after its signature was verified. Raises CertError."""
    try:
        request = x509.load_pem_x509_csr(data)
        _rsa_key(request.public_key())
        for attribute in request.subject:
            if not isinstance(attribute.value, str):
                raise CertError("a field of the subject is not text")
        valid = request.is_signature_valid
    except CertError:
        raise
    except Exception as error:  # the parser raises errors of many kinds, and the input is a stranger's
        raise CertError(f"not a certificate request in PEM form ({_first_line(error)})") from None
    if not valid:
        raise CertError("the signature of the certificate request is wrong")
    return request


def read_file(path: str | Path) -> bytes:
    """The content of a PEM file, in the form that everybody can read. Raises CertError with a text for the user."""
    try:
        with open(path, "rb") as file:
            data = file.read(PEM_LIMIT + 1)
    except OSError as error:
        raise CertError(f"{path}: {error.strerror}") from None
    if len(data) > PEM_LIMIT:
        raise CertError(f"{path}: more than {PEM_LIMIT} bytes, so it is not a certificate or key")
    return pasted.pem(data)


def read_key(path: Path, owner: int, *, private: bool = True) -> rsa.RSAPrivateKey:
    """The key in a PEM file that only root, we and the user `owner` can have written, and, if it is `private`, can
    read. Raises CertError, FileNotFoundError.
    """
    try:
        data = disk.read_ours(path, PEM_LIMIT, owner=owner, private=private)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CertError(f"{path}: {error.strerror}") from None
    except disk.NotOurs as error:
        raise CertError(str(error)) from None
    return load_private_key(pasted.pem(data), str(path))


def prefix_of_cert(cert: x509.Certificate) -> Prefix:
    """The prefix in the CN of a node's certificate. Raises CertError."""
    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise CertError("the certificate must have exactly one common name")
    try:
        return Prefix.from_cn(names[0].value)
    except PrefixError as error:
        raise CertError(f"common name {error}") from None


def number_of_cert(cert: x509.Certificate) -> int | None:
    """The node number: the subject's serialNumber (wire.md 2.2); None if it is missing, or not a number."""
    names = cert.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    text = names[0].value if names else ""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    return None


def key_of_cert(cert: x509.Certificate) -> rsa.RSAPublicKey:
    """The public key of a certificate. Raises CertError if it is not RSA."""
    return _rsa_key(cert.public_key())


def issued_at(cert: x509.Certificate) -> datetime:
    """When a certificate was issued, as it says itself: the older software does not date certificates back."""
    begin, end = pki.begin_of(cert), pki.end_of(cert)
    return begin + BACKDATED if end - begin == VALIDITY + BACKDATED else begin


def network_of_ca(ca: x509.Certificate) -> IPv6Network:
    """The network of a CA. Raises CertError."""
    try:
        return network_of_serial(ca.serial_number)
    except PrefixError as error:
        raise CertError(str(error)) from None


def to_der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.DER)


def to_pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def fingerprint(cert: x509.Certificate, algorithm: str = "sha1") -> bytes:
    """Digest of the DER form. Raises CertError for an unknown hash."""
    try:
        digest = hashlib.new(algorithm, to_der(cert), usedforsecurity=False)
        return digest.digest()
    except (ValueError, TypeError):
        raise CertError(f"unknown hash {algorithm!r}: use sha256") from None


def shown_fingerprint(cert: x509.Certificate) -> str:
    """In the form of re6st-conf --fingerprint."""
    return f"sha256:{fingerprint(cert, 'sha256').hex()}"


# --- making ---


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def key_to_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_request(
    key: rsa.RSAPrivateKey,
    fields: Iterable[x509.NameAttribute[str | bytes]] = (),
    name: requested_name.RequestedName | None = None,
) -> x509.CertificateSigningRequest:
    """A certificate request with these subject fields, signed with SHA-512, which may ask for a name."""
    builder = x509.CertificateSigningRequestBuilder(x509.Name(list(fields)))
    if name is not None:
        builder = requested_name.add(builder, name)
    return builder.sign(key, hashes.SHA512())


def new_ca(key: rsa.RSAPrivateKey, network: IPv6Network, name: str, email: str, now: datetime) -> x509.Certificate:
    """A self-signed CA certificate for `network` (wire.md 2.1)."""
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.EMAIL_ADDRESS, email)]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .serial_number(serial_of_network(network))
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + CA_VALIDITY)
        .public_key(key.public_key())
        .add_extension(identifier, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA512())
    )


# --- using ---


def encrypt(cert: x509.Certificate, data: bytes) -> bytes:
    """ENCRYPT to the owner of a certificate. Raises CertError if its key is too short, or invalid."""
    key = _rsa_key(cert.public_key())
    if len(data) > key.key_size // 8 - 11:
        raise CertError(f"{len(data)} bytes are too many for a key of {key.key_size} bits")
    try:
        return key.encrypt(data, padding.PKCS1v15())
    except ValueError:  # the modulus is not a product of two primes
        raise CertError("the key of the certificate cannot encrypt") from None


def decrypt(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """DECRYPT. Raises CertError."""
    try:
        return key.decrypt(data, padding.PKCS1v15())
    except ValueError:
        raise CertError("cannot be decrypted with our key") from None


def sign(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """SIGN."""
    return key.sign(data, padding.PKCS1v15(), hashes.SHA512())


def verify(cert: x509.Certificate, signature: bytes, data: bytes) -> bool:
    """VERIFY: whether the owner of the certificate signed `data`."""
    try:
        _rsa_key(cert.public_key()).verify(signature, data, padding.PKCS1v15(), hashes.SHA512())
    except (InvalidSignature, ValueError):
        return False
    return True


class Trust:
    """The CA certificate: whose certificates we trust, and which network it is."""

    def __init__(self, ca: x509.Certificate) -> None:
        self.ca = ca
        self.network = network_of_ca(ca)
        self._ca = crypto.X509.from_cryptography(ca)

    @property
    def key_size(self) -> int:
        """Size of the modulus in bits, which all keys of the network share (wire.md 0.1)."""
        return _rsa_key(self.ca.public_key()).key_size

    def check(self, cert: x509.Certificate, when: datetime) -> None:
        """Check chain and validity at `when` (aware). Raises CertError with the reason."""
        store = crypto.X509Store()
        store.add_cert(self._ca)
        store.set_time(when.astimezone(UTC).replace(tzinfo=None))
        try:
            crypto.X509StoreContext(store, crypto.X509.from_cryptography(cert)).verify_certificate()
        except crypto.X509StoreContextError as error:
            raise CertError(f"not accepted: {error}") from None
        except crypto.Error:
            raise CertError("not accepted: OpenSSL cannot read it") from None

    def signed(self, cert: x509.Certificate) -> bool:
        """Whether the CA issued this certificate, whatever its dates are."""
        try:
            pki.verify_issued_by(cert, self.ca)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    def check_strict(self, cert: x509.Certificate, when: datetime) -> None:
        """Check a peer's certificate: also its key size and the form of its CN (wire.md 2.4). Raises CertError."""
        self.check(cert, when)
        if _rsa_key(cert.public_key()).key_size != self.key_size:
            raise CertError("its key does not have the size of the CA's key")
        prefix_of_cert(cert)

    def check_own(self, cert: x509.Certificate, now: datetime) -> None:
        """Check our own certificate at the start: an expired one is accepted, to be renewed; one that is not valid yet
        is not (2.4).
        """
        newest = max(pki.begin_of(self.ca), pki.begin_of(cert))
        if now < newest:
            begin, said = f"{newest:%Y-%m-%dT%H:%M:%SZ}", f"{now:%Y-%m-%dT%H:%M:%SZ}"
            raise NotYetValid(f"the clock says {said}, but the certificate is valid from {begin} on: set the clock")
        self.check(cert, newest)

    def differs(self, new: x509.Certificate) -> str | None:
        """In what `new` differs from a certificate of this same CA; None if it has only other dates.

        If it differs, certificates that were issued before would not be trusted, or anybody could have made it.
        """
        ca = self.ca
        if not pki.same_key(new.public_key(), ca.public_key()):
            return "key"
        if new.subject != ca.subject or new.issuer != ca.issuer:
            return "subject"
        if new.serial_number != ca.serial_number:
            return "serial, hence its network,"
        if not self.signed(new):
            return "signature"
        if pki.digest_bits(new) < min(256, pki.digest_bits(ca)):
            return "signature algorithm"
        if pki.may_sign(new) is False or (pki.may_sign(new) is None and pki.may_sign(ca)):
            return "right to sign certificates"
        return None

    def renews(self, new: x509.Certificate) -> bool:
        """Whether `new` is a longer valid certificate of this CA (wire.md 12, item 2), or the one that we have."""
        later = pki.end_of(new) > pki.end_of(self.ca)
        return new == self.ca or (later and self.differs(new) is None)


class Identity:
    """A node's certificate and key."""

    def __init__(self, trust: Trust, cert: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        if not pki.same_key(cert.public_key(), key.public_key()):
            raise CertError("the key does not belong to the certificate")
        self.trust = trust
        self.cert = cert
        self.key = key
        self.prefix = prefix_of_cert(cert)
        self.der = to_der(cert)
        self.fingerprint = fingerprint(cert)

    @classmethod
    def load(cls, ca: Path, cert: Path, key: Path, now: datetime) -> Identity:
        """Read the three files of a node, and check them as wire.md 2.4 requires. Raises CertError, which names the
        file.
        """
        trust = Trust(load_pem(read_file(ca), str(ca)))
        own = load_pem(read_file(cert), str(cert))
        private = load_node_key(key)
        if not pki.same_key(own.public_key(), private.public_key()):
            own = _finish_key_change(cert, key, private)
        try:
            trust.check_own(own, now)
            return cls(trust, own, private)
        except CertError as error:
            raise type(error)(f"{cert}: {error}") from None

    def verify_version(self, packed: bytes, signature: bytes) -> bool:
        """Whether the CA signed this network version (wire.md 5.2)."""
        return verify(self.trust.ca, signature, packed)


def next_of(path: Path) -> Path:
    """A file of a change of key that has not replaced the old one yet (client/rekey.py)."""
    return path.with_name(f"{path.name}.next")


def _finish_key_change(path: Path, key_path: Path, key: rsa.RSAPrivateKey) -> x509.Certificate:
    """Move the certificate of a new key into its place, if a change of key was interrupted between the two
    (client/rekey.py).

    Raises CertError if there is none.
    """
    beside = next_of(path)
    new = load_pem(read_file(beside), str(beside)) if beside.exists() else None
    if new is None or not pki.same_key(new.public_key(), key.public_key()):
        raise CertError(f"{key_path} does not belong to {path}: restore the key from its backup, or enrol again")
    try:
        disk.move_file(beside, path)
    except OSError as error:
        raise CertError(
            f"{beside} belongs in the place of {path}, and cannot be moved there: {error.strerror}. Move it."
        ) from None
    return new


class Authority:
    """The CA: certificate and key."""

    def __init__(self, ca: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        if not pki.same_key(ca.public_key(), key.public_key()):
            raise CertError("the CA key does not belong to the CA certificate")
        self.trust = Trust(ca)
        self.pem = to_pem(ca)
        self.key = key
        self._issuer = ca.subject.public_bytes()

    def renew(self, ca: x509.Certificate) -> bool:
        """From now on, use a renewed certificate of this CA (wire.md 2.1); returns whether it differs from the previous
        one.

        Raises CertError if the certificates issued before would not be accepted with it.
        """
        before = self.trust.ca
        if what := self.trust.differs(ca):
            raise CertError(f"its {what} differs from that of the CA in use")
        self.trust, self.pem = Trust(ca), to_pem(ca)
        return ca != before

    def issue(
        self,
        subject: x509.Name,
        public_key: rsa.RSAPublicKey,
        serial: int,
        now: datetime,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        """A certificate of version 1 without extensions, as in wire.md 2.2, but dated back."""
        now = now.replace(microsecond=0)
        begin, end = now - BACKDATED, not_after or now + VALIDITY
        body = version1.to_be_signed(self._issuer, subject, public_key, serial, begin, end)
        return version1.certificate(body, sign(self.key, body))

    def check_request(self, request: x509.CertificateSigningRequest) -> rsa.RSAPublicKey:
        """The key in a request, which must have the size of the CA's key (wire.md 0.1, 12 item 8). Raises CertError."""
        key = _rsa_key(request.public_key())
        if key.key_size != self.trust.key_size:
            raise CertError(f"the key has {key.key_size} bits, this network uses {self.trust.key_size}")
        return key


def subject_for(fields: x509.Name, number: int, prefix: Prefix) -> x509.Name:
    """The subject of a node: the request's fields, then serialNumber, then CN (wire.md 2.2)."""
    kept = [a for a in fields if a.oid not in RESERVED_FIELDS]
    return x509.Name(
        [
            *kept,
            x509.NameAttribute(NameOID.SERIAL_NUMBER, str(number)),
            x509.NameAttribute(NameOID.COMMON_NAME, prefix.cn),
        ]
    )


RESERVED_FIELDS = (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER)
"""Subject fields that only the registry sets."""


def _rsa_key(key: object) -> rsa.RSAPublicKey:
    if not isinstance(key, rsa.RSAPublicKey):
        raise CertError("the key is not RSA")
    return key


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
