"""Renewing a node's certificates, as re6stnet does by itself and `re6st-conf renew` when told to (wire.md 2.3)."""

from __future__ import annotations

from re6st import cert
from re6st.client import RegistryClient


async def renew(client: RegistryClient, identity: cert.Identity) -> cert.Identity | None:
    """`identity` with the certificate that the registry has for it now; None where that is the same.

    Raises RegistryError, CertError.
    """
    new = await client.renew_certificate()
    return None if new == identity.cert else cert.Identity(identity.trust, new, identity.key)


async def renew_ca(client: RegistryClient, identity: cert.Identity) -> cert.Identity | None:
    """`identity` with the CA's certificate of now; None where that is the same.

    Raises RegistryError; CertError for one of another CA.
    """
    new = await client.get_ca()
    if new == identity.trust.ca:
        return None
    if not identity.trust.renews(new):
        raise cert.CertError("the registry's CA certificate has another key or network: not taken")
    return cert.Identity(cert.Trust(new), identity.cert, identity.key)
