"""How long a certificate that replaces an older one is valid (wire.md 2.3)."""

from __future__ import annotations

from datetime import UTC, datetime

from re6st import cert
from re6st.registryd.records import Issued


def end_of_renewal(issued: Issued, revoked: bool, now: datetime) -> datetime | None:
    """The end of a renewed certificate; None if it is not time to renew."""
    end = datetime.fromtimestamp(issued.not_after, UTC)
    if end - cert.RENEW_BEFORE < now:
        return now + cert.VALIDITY
    return end if revoked else None


def end_of_replacement(issued: Issued, now: datetime) -> datetime:
    """The end of a certificate that replaces an older one: as if that had been revoked."""
    return end_of_renewal(issued, True, now) or datetime.fromtimestamp(issued.not_after, UTC)
