# SPDX-FileCopyrightText: 2026 the re6st authors
# SPDX-License-Identifier: Apache-2.0
"""re6st-conf: enrol this machine at a registry (wire.md 11.4). words.py has the commands for a machine that has
enrolled.

It writes ca.crt, cert.key, cert.crt and a sample re6stnet.conf to a directory. It writes nothing before the CA was
checked, it writes every file completely or not at all, and it does everything that may fail (subject, key, disk) before
it uses the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import os
import pwd
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.cli.conf.again import Membership, identity_in, membership, patiently
from re6st.cli.conf.options import Options, parse, parse_join
from re6st.cli.conf.program import (
    CA,
    CERT,
    CONF,
    FAILED,
    KEY,
    PROGRAM,
    REFUSED,
    SERVICE_DIRECTORY,
    USAGE,
    ConfError,
    carry_out,
    say,
    warn,
)
from re6st.cli.fingerprint import Fingerprint
from re6st.cli.options import is_text
from re6st.client.registry_client import TIMEOUT, RegistryClient, RegistryError, RegistryRefused
from re6st.core.prefix import Prefix, PrefixError, subnet
from re6st.keys import pki
from re6st.keys.requested_name import RequestedName
from re6st.linux import disk
from re6st.linux.local_addresses import local_addresses

SERVICE_USER, STATUS = "re6stnet", "re6st-status"


FIRST_ANSWER = 10.0
"""Seconds to wait for a registry that has not answered yet."""
_ADVICE = {"email": "give --token or --anonymous", "token": "run again with --token"}


async def enrol(options: Options) -> int:
    """Do what the options ask for; returns the exit code. Raises ConfError, RegistryError, CertError, OSError."""
    # Nothing is lost if we give up here; later, a token may be, so that we wait longer.
    client = RegistryClient(options.registries, timeout=FIRST_ANSWER)
    if not options.is_needed:
        say("Registry", f"{client.url}: asking it for the CA of the network ...")
    trust = check_ca(await client.get_ca(), options.fingerprint)
    client.registries.timeout = TIMEOUT
    if options.is_needed:
        return int(is_inside(trust.network))
    if not options.directory.is_dir():
        raise ConfError(f"{options.directory}: no such directory. Create it, or choose another one with --dir.")
    if options.fingerprint is None:
        check_known_ca(options.directory / CA, trust.ca)
        shown = Fingerprint.of(trust.ca)
        warn(f"the CA is not checked without --fingerprint. Compare with what its operator says: {shown}")
    if options.ca_only:
        save_ca(options.directory / CA, trust)
    else:
        await _enrol(client, trust, options)
    return 0


async def _enrol(client: RegistryClient, trust: cert.Trust, options: Options) -> None:
    directory = options.directory
    check_sample(directory / CONF)
    if not options.force and await is_enough(trust, options):
        return
    fields = subject_fields(directory / CERT, options.fields)
    key, kept = load_key(directory / KEY, trust), True
    if key is None:
        key, kept = await asyncio.to_thread(cert.new_key, trust.key_size), False
    request = make_request(key, fields, options.name)
    token = options.token if options.token is not None else await ask_token(client, options.email, options.interactive)
    save_ca(directory / CA, trust)
    if kept:
        say("Key", f"existing one used again, {directory / KEY}")
    else:
        save_key(directory / KEY, key)
    called = f", for a machine named {options.name.name}" if options.name else ""
    say("Request", f"{'certificate' if token else 'anonymous certificate'} from {client.url}{called} ...")
    try:
        new = await patiently(client.request_certificate(token, request, options.location), client, warn)
    except RegistryError as error:
        if options.token is None:
            warn(f"when trying again, use the same token: --token {token}")
        if not token and isinstance(error, RegistryRefused) and error.status == 403:
            message = f"registry {client.url} takes no anonymous enrolment. Ask its operator for a token."
            raise ConfError(message, REFUSED) from None
        if options.name and options.name.only and isinstance(error, RegistryRefused) and error.status == 409:
            message = f"another machine of this network is named {options.name.name}. Give another --name."
            raise ConfError(f"{message} No token was used.", REFUSED) from None
        raise
    if new is None:
        raise ConfError(
            f'token "{token}" unknown, used or expired. Ask the operator of the network for another invitation; '
            "where the registry mails tokens, give --email YOU instead of it."
        )
    prefix = check_issued(new, trust, key)
    save_cert(directory / CERT, new, trust)
    save_sample(directory / CONF, options)
    service = f"systemctl enable --now re6stnet && {STATUS} wait"
    by_hand = f"cd {shlex.quote(str(directory.absolute()))} && re6stnet @{CONF}"
    say("Next", service if directory.absolute() == SERVICE_DIRECTORY else by_hand)
    say("Subnet", f"{subnet(trust.network, prefix)} (CN={prefix.cn})")


async def is_enough(trust: cert.Trust, options: Options) -> bool:
    """Whether this machine is already a member, and keeps its identity. Raises ConfError if that must not be."""
    directory = options.directory
    known = identity_in(directory / CA, directory / CERT, directory / KEY)
    if known is None:
        return False
    place = f"{subnet(known.trust.network, known.prefix)} (CN={known.prefix.cn})"
    if known.trust.differs(trust.ca) is not None:
        raise ConfError(
            f"{directory / CERT} is of another network, with the subnet {place}. Nothing was changed. "
            "Choose another directory with --dir, or give --force to leave that network."
        )
    found = await membership(options.registries, known)
    if found is Membership.REVOKED:
        say(
            "Revoked",
            f"the registry does not know this machine as {known.prefix.cn} any more: asking for another subnet",
        )
        return False
    if options.interactive and sys.stdin.isatty():
        answer = _ask_line(f"This machine is a member already, with the subnet {place}. Give it up for another? [y/N] ")
        if answer.lower() in ("y", "yes"):
            return False
        raise ConfError("nothing was changed")
    if found is Membership.DOUBTED:
        raise ConfError(
            f"the registry does not seem to know this machine as {known.prefix.cn} any more, with the subnet {place}:"
            " was it revoked? Nothing was changed. Give --force to take another subnet."
        )
    if options.fields:
        raise ConfError(
            f"this machine is a member already, with the subnet {place}. Nothing was changed. "
            "Give --force for another certificate, with another subnet."
        )
    if options.name is not None and options.name.only:
        raise ConfError(
            f"this machine is a member already, with the subnet {place}. Nothing was changed. "
            f"The operator names it: re6st-registry name {known.prefix.cn} {options.name.name}"
        )
    say("Member", "this machine is one already. Nothing was changed, and no token was used (--force: another subnet)")
    say("Subnet", place)
    return True


def check_ca(ca: x509.Certificate, expected: Fingerprint | None) -> cert.Trust:
    """The CA, if it is the expected one and one of re6st. Raises ConfError, CertError."""
    if expected is not None:
        actual = Fingerprint.of(ca, expected.algorithm)
        if not hmac.compare_digest(actual.digest, expected.digest):
            raise ConfError(
                f"the CA's fingerprint is {actual}, not {expected}: "
                "this is another registry, or somebody is in between. Nothing was written."
            )
    return cert.Trust(ca)


def check_known_ca(path: Path, ca: x509.Certificate) -> None:
    """Whether an unchecked CA is the one in this directory. Raises ConfError, CertError."""
    if path.exists() and not cert.Trust(cert.load_pem(cert.read_file(path), str(path))).renews(ca):
        raise ConfError(
            f"the CA {Fingerprint.of(ca)} is not the one in {path}: this is another registry, or somebody is in "
            "between. Give --fingerprint if it is right. Nothing was written."
        )


def is_inside(network: IPv6Network) -> bool:
    """Whether this machine reaches the network from an address inside it: it runs re6st, or its router does.

    Connecting a datagram socket only looks up the route and the source address; no packet is sent.
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((str(network.network_address), 9))
            source = probe.getsockname()[0]
    except OSError as error:
        # A running node makes unused addresses unreachable (wire.md 1.3); on other machines there is no route at all.
        return error.errno == errno.EHOSTUNREACH and any(ip in network for ip in local_addresses())
    return IPv6Address(source.partition("%")[0]) in network


def subject_fields(old: Path, changes: Mapping[x509.ObjectIdentifier, str]) -> list[x509.NameAttribute[str | bytes]]:
    """Subject of the request: the fields of an earlier certificate, with the changes. Raises CertError."""
    kept: list[x509.NameAttribute[str | bytes]] = []
    if old.exists():
        subject = cert.load_pem(cert.read_file(old), str(old)).subject
        kept = [a for a in subject if a.oid not in (*cert.RESERVED_FIELDS, *changes)]
    return kept + [x509.NameAttribute(oid, value) for oid, value in changes.items() if value]


def load_key(path: Path, trust: cert.Trust) -> rsa.RSAPrivateKey | None:
    """The existing key, if there is one, which is used again. Raises CertError, ConfError."""
    try:
        key = cert.read_key(path, service_user(), private=False)
    except FileNotFoundError:
        return None
    if key.key_size != trust.key_size:
        raise ConfError(
            f"{path} has {key.key_size} bits, this network uses {trust.key_size}. "
            "Move it away to get a new one, if no subnet depends on it."
        )
    return key


def check_sample(path: Path) -> None:
    """Check that nobody else can have written the existing options. Raises ConfError."""
    with contextlib.suppress(FileNotFoundError):
        try:
            disk.read_ours(path, 0, owner=service_user(), private=False)
        except disk.NotOurs as error:
            raise ConfError(f"{error}. Nothing was written.") from None


def service_user() -> int:
    """The user of the service, to whom files belong once it has run; our own user if there is no such user."""
    try:
        return pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return os.geteuid()


async def ask_token(client: RegistryClient, email: str | None, interactive: bool = True) -> str:
    """Make the registry mail a token, and ask for it on the terminal. Raises ConfError, RegistryError."""
    email = email or _ask("email", "Your email address: ", USAGE, interactive)
    try:
        await client.request_token(email)
    except RegistryRefused as error:
        match error.status:
            case 403:
                text = "does not mail tokens. Ask its operator for an invitation."
                raise ConfError(f"registry {client.url} {text}", REFUSED) from None
            case 500:  # wire.md 3.1: the mail host of this registry refuses, or is silent
                text = "cannot send mails now; its log says why. Ask its operator for an invitation."
                raise ConfError(f"registry {client.url} {text}", FAILED) from None
        raise
    say("Token", f"mailed to {email}")
    return _ask("token", "The token you received: ", FAILED, interactive)


def _ask(what: str, prompt: str, code: int, interactive: bool) -> str:
    """Ask on the terminal, if there is one and we may. Raises ConfError."""
    answer = _ask_line(prompt) if interactive and sys.stdin.isatty() else ""
    if not is_text(answer):
        raise ConfError(f"the {what} that you typed is not in UTF-8: set the terminal to UTF-8", code)
    if not answer:
        why = "no terminal to ask for it" if interactive else "not to be asked for (--non-interactive)"
        raise ConfError(f"no {what}, and {why}: {_ADVICE[what]}.", code)
    return answer


def _ask_line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        return ""


def check_issued(new: x509.Certificate, trust: cert.Trust, key: rsa.RSAPrivateKey) -> Prefix:
    """Check that the CA signed a new certificate, for our key and inside the network; returns its prefix. Raises
    ConfError.
    """
    try:
        prefix = cert.prefix_of_cert(new)
        subnet(trust.network, prefix)
    except (cert.CertError, PrefixError) as error:
        raise ConfError(f"the registry gave a certificate that cannot be used: {error}") from None
    if not trust.signed(new):
        raise ConfError("the registry gave a certificate that cannot be used: its CA did not sign it")
    if not pki.same_key(new.public_key(), key.public_key()):
        raise ConfError("the registry gave a certificate that cannot be used: it is not for our key")
    return prefix


def save_ca(path: Path, trust: cert.Trust) -> None:
    disk.replace_file(path, cert.to_pem(trust.ca))
    end = pki.end_of(trust.ca)
    say("CA", f'"{_name(trust.ca)}", network {trust.network}, valid until {end:%Y-%m-%d}, in {path}')


def save_key(path: Path, key: rsa.RSAPrivateKey) -> None:
    disk.write_private(path, cert.key_to_pem(key))
    say("Key", f"new RSA-{key.key_size} in {path}: back it up, whoever loses it loses the subnet")


def make_request(
    key: rsa.RSAPrivateKey,
    fields: Sequence[x509.NameAttribute[str | bytes]],
    name: RequestedName | None = None,
) -> x509.CertificateSigningRequest:
    """This runs before anything is written, as the library may refuse a field. Raises ConfError."""
    try:
        return cert.new_request(key, fields, name)
    except (ValueError, TypeError) as error:
        raise ConfError(f"the subject of the certificate: {error}. Nothing was written.") from None


def save_cert(path: Path, new: x509.Certificate, trust: cert.Trust) -> None:
    """Store the certificate, say until when it is valid, and report a wrong clock."""
    try:
        disk.replace_file(path, cert.to_pem(new))
    except OSError:
        warn(f"{path} cannot be written. The token is used now, so save this certificate there yourself:")
        print(cert.to_pem(new).decode("ascii"))
        raise
    end = pki.end_of(new)
    renewal = end - cert.RENEW_BEFORE
    say("Cert", f"valid until {end:%Y-%m-%dT%H:%MZ}, renewed by itself from {renewal:%Y-%m-%d} on, in {path}")
    try:
        trust.check_own(new, datetime.now(UTC))
    except cert.CertError as error:
        warn(f"{path}: {error}")


def save_sample(path: Path, options: Options) -> None:
    if path.exists():
        say("Config", f"existing one left as it is, {path}")
    else:
        disk.replace_file(path, sample_configuration(options).encode())
        say("Config", f"sample written, {path}")


def sample_configuration(options: Options) -> str:
    """re6stnet.conf for this machine; paths are relative to its directory (wire.md 11.1, 11.4)."""
    country, _, _ = options.location.partition(",")
    urls = [f"registry {shlex.quote(url)}" for url in options.registries]
    lines = [*urls, "ca ca.crt", "cert cert.crt", "key cert.key"]
    if country:
        lines.append(f"country {country}")
    return "\n".join(lines) + _SAMPLES


_SAMPLES = """

# say more in the log (0 nothing ... 4 everything):
#verbose 3
# a log of its own for every tunnel, and more in it:
#ovpnlog
#O--verb
#O3
# the local network where other machines run re6st or babeld too:
#interface eth0
"""


def _name(ca: x509.Certificate) -> str:
    """The name of the CA, made safe for a terminal."""
    names = ca.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(names[0].value) if names else "no name"
    return "".join(c if c.isprintable() else "?" for c in text[:64])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    joining = words[:1] == ["join"]
    if words and not joining and words[0][:1] not in ("-", ""):
        from re6st.cli.conf import commands as conf_commands

        return conf_commands.main(words)
    options = parse_join(words[1:]) if joining else parse(words)
    return carry_out(PROGRAM, lambda: asyncio.run(enrol(options)), options.directory)


if __name__ == "__main__":
    sys.exit(main())
