"""What the command line of re6st-conf asks for (wire.md 11.4)."""

from __future__ import annotations

import argparse
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from re6st import cert
from re6st.cli.conf.program import (
    PROGRAM,
    SERVICE_DIRECTORY,
    ConfError,
)
from re6st.cli.fingerprint import Fingerprint
from re6st.cli.options import OptionParser
from re6st.client.registry_client import RegistryError, parse_url
from re6st.core.names import BadName, check, from_host_name
from re6st.core.registry.registry_choice import LIMIT
from re6st.keys.requested_name import RequestedName
from re6st.keys.subject_fields import FIELDS
from re6st.view import pasted

TOKEN_LIMIT = 4096
"""Characters of the file of a token or an invitation that are read."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's options."""

    registries: Sequence[str]
    """At least one URL."""
    directory: Path
    fingerprint: Fingerprint | None = None
    is_needed: bool = False
    ca_only: bool = False
    fields: Mapping[x509.ObjectIdentifier, str] = field(default_factory=dict)
    """Subject fields to set; an empty value removes one."""
    email: str | None = None
    token: str | None = None
    """Empty: anonymous. None: ask for a token by mail."""
    location: str = ""
    name: RequestedName | None = None
    interactive: bool = True
    """Questions on the terminal are allowed, if there is one."""
    force: bool = False
    """Take another subnet even if this machine has one."""


def make_parser() -> OptionParser:
    """All options of re6st-conf (wire.md 11.4)."""
    parser = OptionParser(
        PROGRAM,
        "Enrol this machine: fetch the CA, make a key, get a certificate, write a sample configuration.",
        f"example:\n  {PROGRAM} --join 'https://re6st.example.com/#sha256:3f9a...,token=qwertzui'\n\n"
        f"Shorter: {PROGRAM} join INVITATION.\nLater: {PROGRAM} show|renew|rekey. Each has --help.",
        "%(prog)s OPTION ...\n       %(prog)s join|show|renew|rekey [OPTION ...]",
    )
    add = parser.add_argument_group("the network").add_argument
    add("--join", metavar="URL#ALG:HEX,token=TOKEN", help="the invitation: registry, fingerprint and token in one")
    add(
        "--registry",
        metavar="URL",
        action="append",
        default=[],
        help="URL of the registry; repeat it for others of the network, which are asked when those before them do not"
        " answer",
    )
    add("--fingerprint", metavar="ALG:HEX", help="expected fingerprint of the CA's certificate, e.g. sha256:3f9a...")
    add = parser.add_argument_group("permission to join").add_argument
    add("--token", metavar="TOKEN", help="the token that you received")
    add("--token-file", metavar="FILE", help="read the token from this file; -: from standard input")
    add("--email", metavar="EMAIL", help="let the registry mail a token to this address")
    add("--anonymous", action="store_true", help="use no token; the registry may give a longer prefix then")
    _add_common(add)
    add = parser.add_argument_group("the certificate").add_argument
    add(
        "-d",
        "--dir",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="directory of the files (default: current directory)",
    )
    _add_certificate(add)
    add = parser.add_argument_group("instead of enrolling").add_argument
    add(
        "--is-needed",
        action="store_true",
        help="do nothing, and exit with 0 if this machine does not reach the network yet, else with 1",
    )
    add("--ca-only", action="store_true", help="only fetch the CA's certificate")
    return parser


def make_join_parser() -> OptionParser:
    """The options of `re6st-conf join`."""
    parser = OptionParser(
        f"{PROGRAM} join",
        "Join a network with an invitation: fetch the CA, make a key, get a certificate, write a sample configuration.",
        f"example:\n  {PROGRAM} join 'http://re6st.example.com/#sha256:3f9a...,token=qwertzui'",
    )
    add = parser.add_argument
    add(
        "invitation",
        metavar="INVITATION",
        nargs="+",
        help="the line that you received, or its parts (URL, fingerprint, token) in any order; -: from standard input",
    )
    _add_common(add)
    add(
        "-d",
        "--dir",
        metavar="DIR",
        type=Path,
        help="directory of the files (default: /etc/re6stnet if it exists, else the current directory)",
    )
    _add_certificate(add)
    parser.set_defaults(**dict.fromkeys(("fingerprint", "token", "token_file", "email")))
    parser.set_defaults(registry=[], anonymous=False, ca_only=False, is_needed=False)
    return parser


def _add_common(add: Callable[..., argparse.Action]) -> None:
    add("--non-interactive", action="store_true", help="never ask questions, as without a terminal")
    add("--force", action="store_true", help="get another subnet, if this machine has one already")


def _add_certificate(add: Callable[..., argparse.Action]) -> None:
    add(
        *("-r", "--req"),
        nargs=2,
        metavar=("KEY", "VALUE"),
        action="append",
        default=[],
        help="set a field of the certificate's subject, e.g. O 'Example Corp.'; an empty value removes the field",
    )
    add("--name", metavar="NAME", help="the machine's name in the network (default: its host name); '': none")
    add("--location", metavar="CC,CT", default="", help="codes of country and continent, e.g. FR,EU")


def parse(arguments: Sequence[str] | None) -> Options:
    """Options from the command line. Exits with status 2 if they are wrong."""
    parser = make_parser()
    values = parser.parse_args(arguments)
    try:
        return _options(values)
    except ConfError as error:
        parser.error(str(error))


def parse_join(arguments: Sequence[str]) -> Options:
    """Options of `re6st-conf join`. Exits with status 2 if they are wrong."""
    parser = make_join_parser()
    values = parser.parse_args(arguments)
    try:
        values.join = "\n".join(values.invitation) if values.invitation != ["-"] else _read("the invitation", "-")
        if values.dir is None:
            values.dir = SERVICE_DIRECTORY if SERVICE_DIRECTORY.is_dir() else Path()
        options = _options(values)
        if options.token is None:
            raise ConfError("this invitation has no token: ask for the whole line, or see re6st-conf --help")
        if options.fingerprint is None:
            raise ConfError(
                "this invitation has no fingerprint, so anybody on the way could be the registry: ask for the whole"
                " line, or see re6st-conf --help"
            )
        return options
    except ConfError as error:
        parser.error(str(error))


def _options(values: argparse.Namespace) -> Options:
    """Check and convert. Raises ConfError."""
    registries, fingerprint, token = list(map(pasted.word, values.registry)), values.fingerprint, values.token
    if values.join is not None:
        if registries or fingerprint is not None or token is not None:
            raise ConfError("--join contains --registry, --fingerprint and --token: leave these out")
        url, fingerprint, token = pasted.invitation(values.join)
        registries = [url] if url else []
    if not all(registries) or not registries:
        raise ConfError("the following arguments are required: --registry")
    if len(registries) > LIMIT:
        raise ConfError(f"--registry: given {len(registries)} times, at most {LIMIT} are possible")
    for url in registries:
        try:
            parse_url(url)
        except RegistryError:
            option = "--join" if "invitation" not in values else "the invitation"
            option = "--registry" if values.join is None else option
            raise ConfError(f"{option} {url}: not of the form http://HOST[:PORT][/PATH]") from None
    if values.anonymous and (values.email or token is not None or values.token_file):
        raise ConfError("--anonymous conflicts with --email, --token and --token-file")
    if values.token_file and token is not None:
        raise ConfError("--token-file: --token or --join gives a token already: leave one of them out")
    if values.token_file:
        token = read_token(values.token_file)
    if token is not None and not token.strip():
        raise ConfError("the token is empty: use --anonymous to enrol without one")
    if values.location and not re.fullmatch(r"[A-Z]{2},[A-Z]{2}", values.location):
        raise ConfError(f"--location {values.location!r}: give two codes of two capital letters, as in FR,EU")
    try:
        name = _name(values.name)
    except BadName as error:
        raise ConfError(f"--name {error}") from None
    try:
        expected = None if fingerprint is None else Fingerprint.parse(fingerprint)
    except ValueError:
        raise ConfError(f"fingerprint {fingerprint!r}: not of the form ALG:HEX, as in sha256:3f9a...") from None
    return Options(
        registries=registries,
        directory=values.dir,
        fingerprint=expected,
        is_needed=values.is_needed,
        ca_only=values.ca_only,
        fields=dict(_field(key, value) for key, value in values.req),
        email=values.email,
        token="" if values.anonymous else pasted.token(token) if token else None,
        location=values.location,
        name=name,
        interactive=not values.non_interactive,
        force=values.force,
    )


def _name(given: str | None) -> RequestedName | None:
    """The name to ask for. Raises BadName."""
    if given is not None:
        return RequestedName(check(given), only=True) if given else None
    found = from_host_name(socket.gethostname())
    return None if found is None else RequestedName(found, only=False)


def read_token(name: str) -> str:
    """The token in a file, or on standard input (`-`). Raises ConfError."""
    text = _read(f"--token-file {name}", name)
    if len(text.split()) != 1:
        raise ConfError(f"--token-file {name}: it must have one word, the token, and has {len(text.split())}")
    return text.strip()


def _read(what: str, name: str) -> str:
    """The text in a file, or on standard input (`-`). Raises ConfError."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(TOKEN_LIMIT)
        else:
            with open(name, "rb") as file:
                data = file.read(TOKEN_LIMIT)
        return pasted.lines(pasted.text(data))
    except OSError as error:
        raise ConfError(f"{what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfError(f"{what}: not a text file") from None


def _field(key: str, value: str) -> tuple[x509.ObjectIdentifier, str]:
    oid = FIELDS.get(key)
    if oid is None:
        raise ConfError(f"--req {key}: unknown field. Known are {', '.join(sorted(FIELDS))}")
    if oid in cert.RESERVED_FIELDS:
        raise ConfError(f"--req {key}: only the registry sets this field")
    if value:
        try:
            x509.NameAttribute(oid, value)
        except ValueError as error:
            raise ConfError(f"--req {key} {value!r}: {error}") from None
    return oid, value
