"""Renews a node's certificates: re6stnet does this by itself, and `re6st-conf renew` when the user asks for it (wire.md
2.3).
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509

from re6st import cert
from re6st.client.registry_client import RegistryClient
from re6st.keys import pki


async def renew(
    client: RegistryClient, identity: cert.Identity, revoked: frozenset[int] = frozenset()
) -> cert.Identity | None:
    """`identity` with the certificate that the registry has for it now; None if that is the same.

    An older certificate than ours is never accepted, since somebody in between may have recorded it: it ends earlier,
    or at the same moment with a lower serial number. If ours is `revoked`, a higher serial number is enough.

    Raises RegistryError, CertError.
    """
    new, old = await client.renew_certificate(), identity.cert
    if new == old:
        return None
    if new.serial_number in revoked:
        raise cert.CertError(f"the registry gave certificate {new.serial_number}, which is revoked: it is not used")
    later = _age(new) > _age(old) or (old.serial_number in revoked and new.serial_number > old.serial_number)
    if not later:
        raise cert.CertError(
            f"the registry gave certificate {new.serial_number}, which is older than ours, {old.serial_number}:"
            " it is not used. Its database is an old copy, or somebody in between replays an old answer"
        )
    return cert.Identity(identity.trust, new, identity.key)


async def renew_ca(client: RegistryClient, identity: cert.Identity, now: datetime) -> cert.Identity | None:
    """`identity` with the present certificate of the CA; None if that is the same.

    Raises RegistryError; CertError if it is another CA, if it ends no later, or if our own certificate is not valid
    under it.
    """
    new, trust = await client.get_ca(), identity.trust
    if new == trust.ca:
        return None
    if what := trust.differs(new):
        raise cert.CertError(
            f"the registry's CA certificate differs from ours in its {what.rstrip(',')}: it is not used"
        )
    if not trust.renews(new):
        raise cert.CertError("the registry's CA certificate ends no later than ours: it is not used")
    cert.Trust(new).check_own(identity.cert, now)
    return cert.Identity(cert.Trust(new), identity.cert, identity.key)


def _age(certificate: x509.Certificate) -> tuple[datetime, int]:
    return pki.end_of(certificate), certificate.serial_number
