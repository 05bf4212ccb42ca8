"""A node's certificate and that of its CA as a record for re6st-status, from a running node or from the files."""

from __future__ import annotations

import hashlib
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from re6st import cert
from re6st.core.prefix import address, subnet
from re6st.core.telemetry.report import Record
from re6st.keys import pki


def describe(ca: x509.Certificate, own: x509.Certificate) -> Record:
    """The owner of the certificate, its subnet, its dates (Unix times), and its CA. Raises CertError."""
    prefix, network = cert.prefix_of_cert(own), cert.network_of_ca(ca)
    until = pki.end_of(own)
    return {
        "cn": prefix.cn,
        "subject": name_text(own.subject),
        "serial": own.serial_number,
        "subnet": str(subnet(network, prefix)),
        "address": str(address(network, prefix)),
        "starts": _time(pki.begin_of(own)),
        "until": _time(until),
        "renews": _time(until - cert.RENEW_BEFORE),
        "key_bits": cert.key_of_cert(own).key_size,
        "fingerprint": cert.shown_fingerprint(own),
        "ca": {
            "subject": name_text(ca.subject),
            "network": str(network),
            "starts": _time(pki.begin_of(ca)),
            "until": _time(pki.end_of(ca)),
            "key_bits": cert.key_of_cert(ca).key_size,
            "fingerprint": cert.shown_fingerprint(ca),
            "key_fingerprint": key_fingerprint(ca),
        },
    }


def name_text(name: x509.Name) -> str:
    """The subject as RFC 4514 writes it, in the order of the certificate."""
    short = {x509.NameOID.EMAIL_ADDRESS: "emailAddress", x509.NameOID.SERIAL_NUMBER: "serialNumber"}
    return ", ".join(rdn.rfc4514_string(short) for rdn in name.rdns)


def key_fingerprint(certificate: x509.Certificate) -> str:
    """A hash of the key alone, which a renewed CA keeps."""
    encoded = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def _time(when: datetime) -> int:
    return int(when.timestamp())
