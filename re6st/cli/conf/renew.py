"""`re6st-conf renew` and `rekey`: a new certificate, or a new key too (wire.md 2.3, docs/protocol.md)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from cryptography import x509

from re6st import cert
from re6st.cli.conf.files import NodeFiles
from re6st.cli.conf.program import REFUSED, ConfError, say
from re6st.client import renewal
from re6st.client.registry_client import RegistryClient, RegistryKeyError, RegistryRefused
from re6st.client.rekey import change_key
from re6st.core.prefix import subnet
from re6st.core.words import away
from re6st.keys import pki
from re6st.linux import disk

_TAKEN_OVER = "where re6stnet runs, it goes on with it within seconds"


async def renew(place: NodeFiles, within: int, *, force: bool) -> int:
    """Ask for new certificates if one here ends in `within` seconds, or in any case. Returns the exit code.

    Raises ConfError, RegistryError, CertError, OSError.
    """
    files, now = place.files, datetime.now(UTC)
    identity = cert.Identity.load(files.ca, files.cert, files.key, now)

    def ends(certificate: x509.Certificate, within: timedelta) -> bool:
        return pki.end_of(certificate) - within < now

    span, changed = timedelta(seconds=within), False
    client = RegistryClient(place.registries, identity)
    if force or ends(identity.trust.ca, span):
        if (with_ca := await renewal.renew_ca(client, identity, now)) is not None:
            identity = client.identity = with_ca
            disk.replace_file(files.ca, cert.to_pem(identity.trust.ca))
            changed = True
        say("CA", f"{'new, ' if changed else ''}{_until(identity.trust.ca)}, in {files.ca}")
    if force or ends(identity.cert, span):
        if (renewed := await renewal.renew(client, identity)) is not None:
            disk.replace_file(files.cert, cert.to_pem(renewed.cert))
            identity, changed = renewed, True
            say("Cert", f"new, serial {identity.cert.serial_number}, {_until(identity.cert)}, in {files.cert}")
        elif ends(identity.cert, cert.RENEW_BEFORE):
            raise ConfError(
                f"registry {client.url} returned the same certificate, {_until(identity.cert)}: "
                "its clock or ours is wrong. Tell its operator."
            )
    if changed:
        say("Node", _TAKEN_OVER)
    else:
        first = pki.end_of(identity.cert) - cert.RENEW_BEFORE
        say("Cert", f"{_until(identity.cert)}; not renewed before {first:%Y-%m-%d}: nothing to do")
    return 0


async def rekey(place: NodeFiles, *, keep_old: bool) -> int:
    """Change the key, or finish that. Returns the exit code. Raises ConfError, RegistryError, CertError, OSError."""
    files, urls = place.files, place.registries
    old = cert.load_pem(cert.read_file(files.cert), str(files.cert))
    say("Request", f"certificate for another key from {RegistryClient(urls).url} ...")
    try:
        new = await change_key(urls, files, keep_old=keep_old)
    except RegistryKeyError as error:
        raise ConfError(f"{error} If it was not you who changed it, tell the operator.", REFUSED) from None
    except RegistryRefused as error:
        if error.status != HTTPStatus.BAD_REQUEST:
            raise
        cause = "it runs an older version, or other software. The key is unchanged."
        raise ConfError(f"registry {RegistryClient(urls).url} cannot change a key: {cause}", REFUSED) from None
    say("Key", f"new RSA-{new.key.key_size} in {files.key}: back it up, the copy of the old one is of no use now")
    say("Cert", f"new, serial {new.cert.serial_number}, {_until(new.cert)}, in {files.cert}")
    fate = f"accepted as long as it is valid, {_until(old)}" if keep_old else "refused by the whole network from now on"
    if old.serial_number != new.cert.serial_number:
        say("Old", f"serial {old.serial_number} is {fate}")
    say("Node", _TAKEN_OVER)
    say("Subnet", f"{subnet(new.trust.network, new.prefix)} (CN={new.prefix.cn}), as before")
    return 0


def _until(certificate: x509.Certificate) -> str:
    end = pki.end_of(certificate)
    return f"valid until {end:%Y-%m-%dT%H:%MZ} ({away(end.timestamp(), time.time())})"
