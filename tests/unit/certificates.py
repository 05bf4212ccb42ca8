"""Certificates for tests."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv6Network

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.core.prefix import Prefix

NETWORK = IPv6Network("2001:db8:42::/48")


def issue(
    authority: cert.Authority,
    key: rsa.RSAPrivateKey,
    when: datetime,
    cn: str = "3/16",
    serial: int = 7,
    until: datetime | None = None,
) -> x509.Certificate:
    subject = cert.subject_for(x509.Name([]), 5, Prefix.from_cn(cn))
    return authority.issue(subject, key.public_key(), serial, when, until)
