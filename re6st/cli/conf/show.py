"""`re6st-conf show`: the certificates and the key of this machine, and what is wrong with them."""

from __future__ import annotations

import argparse
import json
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.cli.conf.files import NodeFiles
from re6st.cli.conf.program import FAILED, say
from re6st.client.certificate_report import describe
from re6st.client.registry_client import RegistryError, parse_url
from re6st.core.telemetry.report import CERTIFICATE_WARNING
from re6st.core.words import away
from re6st.keys import pki

SCHEMA = 1
"""It counts up when a field of the JSON changes its meaning or is removed."""

T = TypeVar("T")


@dataclass(slots=True)
class FoundFiles:
    """What could be read, and what is wrong."""

    ca: x509.Certificate | None = None
    own: x509.Certificate | None = None
    key: rsa.RSAPrivateKey | None = None
    registries: Sequence[str] = ()
    """The URLs of the registries, without user and password."""
    certificate: Mapping[str, Any] | None = None
    """The contents of the two certificates; see client/certificate_report.py."""
    problems: list[str] = field(default_factory=list)

    @property
    def matches(self) -> bool | None:
        """Whether the key belongs to the certificate."""
        return (
            None if self.key is None or self.own is None else pki.same_key(self.key.public_key(), self.own.public_key())
        )


def show(place: NodeFiles, options: argparse.Namespace) -> int:
    """Print it. Returns the exit code: FAILED if something is wrong."""
    now = datetime.now(UTC)
    found = look(place, now)
    record = report(place, found, now)
    if options.json:
        print(json.dumps(record, indent=2))
    else:
        _print(place, record, now.timestamp())
    return FAILED if found.problems else 0


def look(place: NodeFiles, now: datetime) -> FoundFiles:
    """Read the files, and check that they fit each other and the time."""
    found, files = FoundFiles(), place.files
    wrong = found.problems.append

    def read(load: Callable[[], T]) -> T | None:
        try:
            return load()
        except cert.CertError as error:
            wrong(str(error))
        return None

    ca = found.ca = read(lambda: cert.load_pem(cert.read_file(files.ca), str(files.ca)))
    own = found.own = read(lambda: cert.load_pem(cert.read_file(files.cert), str(files.cert)))
    found.key = read(lambda: cert.load_node_key(files.key))
    if ca is not None:
        found.problems += _dates(str(files.ca), ca, now)
    if own is not None:
        found.problems += _dates(str(files.cert), own, now)
    if ca is not None and own is not None:
        trust = read(lambda: cert.Trust(ca))
        if trust is None:
            pass
        elif not trust.signed(own):
            wrong(f"the CA in {files.ca} did not sign {files.cert}: one of the two belongs to another network")
        else:
            found.certificate = read(lambda: describe(ca, own))
    try:
        found.registries = [str(parse_url(url)) for url in place.urls]
    except RegistryError as error:
        wrong(str(error))
    begun = cert.next_of(files.key).exists()
    if found.matches is False and not begun:
        wrong(f"{files.key} does not belong to {files.cert}: restore the key from its backup, or enrol again")
    if begun:
        wrong("a change of key was begun and not finished: re6st-conf rekey finishes it")
    if files.key.exists() and (mode := stat.S_IMODE(files.key.stat().st_mode)) & 0o077:
        wrong(f"{files.key} may be read by others (mode {mode:04o}): chmod 600 {files.key}")
    return found


def _dates(name: str, certificate: x509.Certificate, now: datetime) -> list[str]:
    start, end = pki.begin_of(certificate), pki.end_of(certificate)
    if now < start:
        said, begin = f"{now:%Y-%m-%dT%H:%M:%SZ}", f"{start:%Y-%m-%dT%H:%M:%SZ}"
        return [f"{name}: the clock says {said}, but it is valid from {begin} on: set the clock"]
    left = (end - now).total_seconds()
    if left > CERTIFICATE_WARNING:
        return []
    when = away(end.timestamp(), now.timestamp())
    return [f"{name}: {'ends' if left > 0 else 'ended'} {when}, and was not renewed: try re6st-conf renew"]


def report(place: NodeFiles, found: FoundFiles, now: datetime) -> dict[str, Any]:
    """The same as a record; docs/join.md describes it."""
    own = found.own
    days = None if own is None else (pki.end_of(own) - now).days
    key = None if found.key is None else {"bits": found.key.key_size, "matches": found.matches}
    files = {name: str(getattr(place.files, name)) for name in ("ca", "cert", "key")}
    return {
        "schema": SCHEMA,
        "ok": not found.problems,
        "problems": found.problems,
        "files": files,
        "registry": next(iter(found.registries), None),
        "registries": list(found.registries),
        "certificate": found.certificate,
        "days_left": days,
        "key": key,
    }


def _print(place: NodeFiles, record: Mapping[str, Any], now: float) -> None:
    own, key, files = record["certificate"], record["key"], place.files
    if own is not None:
        ca = own["ca"]
        say("CA", f"{ca['subject']}, network {ca['network']}, in {files.ca}")
        say("", f"valid until {_when(ca['until'], now)}, {ca['fingerprint']}")
        say("Subnet", f"{own['subnet']} (CN={own['cn']}), address {own['address']}")
        say("Cert", f"serial {own['serial']}, valid from {_minute(own['starts'])}")
        say("", f"until {_when(own['until'], now)}, renewed from {_minute(own['renews'])[:10]} on, in {files.cert}")
        say("Subject", own["subject"])
    if key is not None:
        belongs = {True: "belongs to the certificate", False: "does not belong to it", None: "no certificate"}
        say("Key", f"RSA-{key['bits']}, {belongs[key['matches']]}, in {files.key}")
    for url in record["registries"]:
        say("Registry", url)
    for problem in record["problems"]:
        say("Wrong", problem)


def _minute(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _when(when: float, now: float) -> str:
    return f"{_minute(when)} ({away(when, now)})"
