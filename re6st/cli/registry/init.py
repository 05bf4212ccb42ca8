"""re6st-registry init: makes the files of a new network, which then starts with two commands.

It makes the key and the certificate of the CA, whose serial contains the network (wire.md 1.1), Diffie-Hellman
parameters and an option file. It writes all of them or none, and never replaces an existing file.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv6Network
from pathlib import Path

from cryptography import x509

from re6st import cert
from re6st.cli.options import OptionParser, fail, integer, registry_url
from re6st.core.registry.allocator import ROOT, AllocationError, Allocator
from re6st.keys import pki
from re6st.linux import disk
from re6st.registryd.mail import is_address

PROGRAM = "re6st-registry init"
OPTIONS_FILE = "re6st-registry.conf"
PREFIX_LENGTH = 16
_DOCUMENTATION, _LOCAL, _LOCAL_LENGTH = IPv6Network("2001:db8::/32"), IPv6Network("fd00::/8"), 48
LONGEST_NETWORK = 120
"""With room for 255 nodes of one address."""

FFDHE2048 = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""The group ffdhe2048 of RFC 7919: it is as good as one of our own, which would take minutes to find."""

OPTIONS = """\
# Options of re6st-registry, one per line, without dashes; see re6st-registry --help.
# File names are relative to the directory it is started in: {directory}

# The authority of the network {network}. Keep a copy of ca.key in a safe place.
ca ca.crt
key ca.key
dh dh.pem

port {port}

# How nodes reach this registry: what re6st-registry invite puts into invitations.
{url}

# Bits of the subnet number: each node gets a /{subnet}.
# For the holders of tokens: re6st-registry invite makes them, or mailhost sends them.
prefix-length {length}
# For anybody who asks, without a token.
{anonymous}anonymous-prefix-length {length}

# Who may call administrative methods, besides this machine.
#authorized-origin 192.0.2.1

# The operator's page. Everybody on this machine may use it, as all other calls of the operator; not so with web-login.
web 127.0.0.1:8326

# Tokens by mail. From: the address in the certificate of the authority.
#mailhost localhost

# Encrypt the tunnels.
encrypt

# Seconds between the hellos of the routing protocol (babel) while the network has nodes of the older software,
# re6stnet by Nexedi. Nodes of this software use shorter ones among themselves.
hello 4

# IPv4 inside the network: node 3 gets 10.42.3.0/24.
#ipv4 10.42.0.0/16 8

# 1: warnings, 2: information, 3: debug.
verbose 2
"""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    data: bytes
    private: bool = False


def make_parser() -> OptionParser:
    """All options of re6st-registry init."""
    parser = OptionParser(
        PROGRAM,
        "Make the files of a new network: key and certificate of the CA, option file.",
        f"example: {PROGRAM} --network random --url http://registry.example.com/\n\n"
        "--network random takes a random /48 of fd00::/8, which hardly anybody else has\n(RFC 4193).",
    )
    add = parser.add_argument
    add("--network", metavar="NET", required=True, help="IPv6 network of all nodes, e.g. 2001:db8:42::/48, or random")
    add("--url", metavar="URL", type=registry_url, help="URL of the registry, for invitations")
    add(
        "-d",
        "--dir",
        metavar="DIR",
        type=Path,
        default=Path("/etc/re6stnet"),
        help="directory of the files (default: %(default)s)",
    )
    add("--name", metavar="NAME", help="name of the CA (default: re6st and the network)")
    add("--email", metavar="EMAIL", default="root@localhost", help="sender of mails with tokens (default: %(default)s)")
    add("--port", metavar="N", type=integer(1, 65535), default=80, help="port to listen on (default: %(default)s)")
    add("--anonymous", action="store_true", help="let anybody join without a token")
    add("--key-size", type=int, choices=cert.KEY_SIZES, default=2048, help="bits of all RSA keys of the network")
    return parser


def main(argv: Sequence[str]) -> int:
    """Make the files, and print what to do next. Returns the exit status."""
    parser = make_parser()
    options = parser.parse_args(argv)
    network = _network(parser, options.network)
    name = options.name or f"re6st {network}"
    if not re.fullmatch(r"[ -~]{1,64}", name):
        parser.error(f"--name {name!r}: use 1 to 64 ASCII letters, digits, spaces and punctuation marks")
    if not is_address(options.email):
        parser.error(f"--email {options.email}: not an e-mail address")

    directory: Path = options.dir
    names = ("ca.key", "ca.crt", "dh.pem", OPTIONS_FILE)
    for path in (directory / name for name in names):
        if path.exists():
            fail(PROGRAM, f"{path} exists already, and is not replaced. Choose another --dir, or move it away.")
    key = cert.new_key(options.key_size)
    ca = cert.new_ca(key, network, name, options.email, datetime.now(UTC).replace(microsecond=0))
    text = OPTIONS.format(
        directory=directory.absolute(),
        network=network,
        port=options.port,
        length=(length := prefix_length(network)),
        subnet=network.prefixlen + length,
        anonymous="" if options.anonymous else "#",
        url=f"url {options.url}" if options.url else "#url http://registry.example.com/",
    )
    contents = (cert.key_to_pem(key), cert.to_pem(ca), FFDHE2048.encode(), text.encode())
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write([_File(directory / n, data, n == "ca.key") for n, data in zip(names, contents, strict=True)])
    except OSError as error:
        fail(PROGRAM, f"{error.filename or directory}: {error.strerror}. Nothing was written.")
    if doubt := doubts(network):
        print(f"{PROGRAM}: note: {doubt}", file=sys.stderr)
    print(_summary(directory.absolute(), ca, options))
    return 0


def prefix_length(network: IPv6Network) -> int:
    """How many bits nodes get by default: 16, or in a small network all that there are."""
    try:
        Allocator(network.prefixlen).check_length(ROOT, PREFIX_LENGTH)
        return PREFIX_LENGTH
    except AllocationError:
        return network.max_prefixlen - network.prefixlen


def random_network() -> IPv6Network:
    """A /48 of fd00::/8 with 40 random bits (RFC 4193 section 3.2.2)."""
    return IPv6Network((0xFD << 120 | secrets.randbits(40) << 80, 48))


def doubts(network: IPv6Network) -> str:
    """Why this network may be a bad choice; empty: no reason."""
    if network.subnet_of(_DOCUMENTATION):
        return (
            f"{network} belongs to {_DOCUMENTATION}, which is for examples in documents: good for a try."
            " Otherwise give --network random"
        )
    if network.subnet_of(_LOCAL) and network.prefixlen < _LOCAL_LENGTH:
        return (
            f"{network} may collide with private networks of others, which are parts of {_LOCAL} too:"
            " a random /48 of it does not (--network random)"
        )
    if not network.subnet_of(_LOCAL) and not network.is_global:
        return f"{network} is not for hosts: take a part of what your provider gave you, or --network random"
    return ""


def _network(parser: OptionParser, text: str) -> IPv6Network:
    if text == "random":
        return random_network()
    try:
        network = IPv6Network(text)
    except AddressValueError:
        parser.error(
            f"--network {text}: give an IPv6 network such as 2001:db8:42::/48, or the word random."
            " For IPv4 inside it, set ipv4 in the option file later"
        )
    except ValueError as error:
        parser.error(f"--network {text}: {error}")
    if not 0 < network.prefixlen <= LONGEST_NETWORK:
        parser.error(f"--network {text}: the network must be a /1 to a /{LONGEST_NETWORK}")
    return network


def _write(files: list[_File]) -> None:
    """Write all files, or none. Raises OSError."""
    written: list[Path] = []
    try:
        for file in files:
            disk.write_private(file.path, file.data)
            written.append(file.path)
            if not file.private:
                os.chmod(file.path, 0o644)
    except BaseException:
        for path in written:
            path.unlink()
        raise


def _summary(directory: Path, ca: x509.Certificate, options: argparse.Namespace) -> str:
    """What was made, and what to do next."""
    url = options.url or "http://localhost" + (f":{options.port}" if options.port != 80 else "")
    fingerprint = cert.shown_fingerprint(ca)
    lines = [
        f"CA       network {cert.network_of_ca(ca)}, valid until {pki.end_of(ca):%Y-%m-%d}",
        f"         fingerprint {fingerprint}",
        f"Key      {directory / 'ca.key'} (0600): back it up; whoever has it owns the network",
        f"Options  {directory / OPTIONS_FILE}: look them over"
        + ("" if options.url else ", and set url in it to how nodes reach this registry"),
        "",
        "Next     start the registry:",
        f"           cd {directory} && re6st-registry @{OPTIONS_FILE}",
        "         (as a service: systemctl enable --now re6st-registry), then enrol this machine as the first node:",
    ]
    if options.anonymous:
        lines.append(f"           re6st-conf --registry {url} --fingerprint {fingerprint} --anonymous")
    else:
        lines.append(f"           re6st-registry invite {options.email} --url {url} @{OPTIONS_FILE}")
        lines.append("         and run the line that it prints")
    return "\n".join(lines)
