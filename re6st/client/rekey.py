"""A new key for the subnet that we have: `re6st-conf rekey` (docs/protocol.md, "Changing a key").

These are the steps. If we are killed between two of them, there is a key with a matching certificate, and the next run
finishes the change:

1. The new key, beside the old one (`cert.key.next`), is on the disk before the registry hears of it. An existing one is
   taken for ours only if nobody else can have put it there, or read it.
2. The registry's certificate for it is stored beside the old one, too (`cert.crt.next`). The old pair is still valid.
3. The key replaces the old one, then the certificate. Between the two, `Identity.load` moves the certificate.
4. With the new key, we ask the registry to revoke the earlier certificates. The key beside is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.client.files import Files
from re6st.client.registry_client import RegistryClient, RegistryKeyError, RegistryRefused
from re6st.keys import pki
from re6st.linux import disk


async def change_key(url: str | Sequence[str], files: Files, *, keep_old: bool = False) -> cert.Identity:
    """Change our key, or finish a change; with `keep_old`, the certificates of the old key stay valid until they end.

    Raises RegistryError, CertError, OSError.
    """
    identity = cert.Identity.load(files.ca, files.cert, files.key, datetime.now(UTC))
    beside = cert.next_of(files.key)
    try:
        key, begun = cert.read_key(beside, files.key.stat().st_uid), True
    except FileNotFoundError:
        begun = False
        key = await asyncio.to_thread(cert.new_key, identity.trust.key_size)
        disk.write_private(beside, cert.key_to_pem(key), owner=files.key)
    if not pki.same_key(identity.key.public_key(), key.public_key()):
        try:
            new = await _certificate(url, identity, key, begun)
        except RegistryRefused as error:
            if error.status == HTTPStatus.BAD_REQUEST and not begun:  # the registry does not have this call
                beside.unlink()
            raise
        identity = cert.Identity(identity.trust, new, key)
        _put_into_place(files, identity)
    if not keep_old:
        await RegistryClient(url, identity).revoke_superseded()
    beside.unlink()
    return identity


async def _certificate(
    url: str | Sequence[str], old: cert.Identity, key: rsa.RSAPrivateKey, begun: bool
) -> x509.Certificate:
    """The certificate for the new key. After an earlier run, the registry may know only this one."""
    if begun:
        try:
            return await RegistryClient(url, old, key=key).rekey_certificate(key)
        except RegistryKeyError:
            pass
    return await RegistryClient(url, old).rekey_certificate(key)


def _put_into_place(files: Files, new: cert.Identity) -> None:
    certificate = cert.next_of(files.cert)
    disk.replace_file(certificate, cert.to_pem(new.cert), like=files.cert)
    disk.replace_file(files.key, cert.key_to_pem(new.key))
    with contextlib.suppress(FileNotFoundError):  # a running node was faster
        disk.move_file(certificate, files.cert)
