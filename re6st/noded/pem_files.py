"""Certificates and keys in files that we can read, but OpenVPN cannot: put into the form that both can.

A PEM file that was pasted may be indented, or be one long line. Our library takes more forms than OpenSSL, which
OpenVPN has: without this, a node would run whose tunnels all fail.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from OpenSSL import crypto

from re6st import cert
from re6st.client.files import Files
from re6st.linux import disk

log = logging.getLogger(__name__)


def unreadable(files: Files) -> Iterator[Path]:
    """Those that OpenSSL cannot read as they are, or not as we do. Raises CertError for those that are none to us."""
    for path in (files.ca, files.cert):
        try:
            crypto.load_certificate(crypto.FILETYPE_PEM, _as_it_is(path))
        except crypto.Error:
            yield path
    try:
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, _as_it_is(files.key))
    except crypto.Error:
        yield files.key
    else:
        if key.type() != crypto.TYPE_RSA:  # a key for RSASSA-PSS alone
            yield files.key


def rewrite(files: Files) -> None:
    """Put those into the usual form. Raises CertError."""
    for path in unreadable(files):
        data = cert.read_file(path)
        plain = cert.key_to_pem(cert.load_private_key(data)) if path == files.key else cert.to_pem(cert.load_pem(data))
        try:
            disk.replace_file(path, plain)
        except OSError as error:
            raise cert.CertError(
                f"{path}: OpenVPN cannot read its form, and we cannot write it anew: {error.strerror}"
            ) from None
        log.warning("%s: written anew, in the form that OpenVPN reads", path)


def _as_it_is(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(cert.PEM_LIMIT)
    except OSError as error:
        raise cert.CertError(f"{path}: {error.strerror}") from None
