"""re6st-registry --check-config: everything that is wrong with the options and the files; nothing is changed.

Status 0, or 78 (EX_CONFIG of sysexits.h) after one line for each problem. It can run beside a running registry.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.utils import CryptographyDeprecationWarning

from re6st.cli.checks import cannot_write, tell
from re6st.cli.registry import operator_port
from re6st.cli.registry.config import PROGRAM, RegistryConfig, problems
from re6st.cli.registry.database import problems_of_server
from re6st.keys import pki
from re6st.registryd.sqlite.outline import problems_of_file

DH_BITS = 1024
"""OpenVPN 2.6 with OpenSSL 3 refuses smaller groups."""


def main(options: argparse.Namespace, database: str | None) -> int:
    """Check, and print what is wrong. `database` is the value of GEOIP2_MMDB, if it is set. Returns the exit status."""
    config, found = problems(options, database)
    found += _places(options)
    found += [] if config is None else [*_files(options, config), *_database(config)]
    place = (options.ipv4_address, options.ipv6_address, options.port, options.url, options.operator_port)
    for warning in (*(config.warnings if config else ()), *operator_port.warnings(*place)):
        print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)
    return tell(PROGRAM, found)


def _places(options: argparse.Namespace) -> Iterator[str]:
    """Files that it will write: they exist, or can be made."""
    places = [("--db", options.db)]
    if options.verbose:
        places.append(("--logfile", options.logfile))
    if options.mailhost and os.path.isabs(options.mailhost):
        places.append(("--mailhost", Path(options.mailhost)))
    for option, path in places:
        if trouble := cannot_write(path):
            yield f"{option} {path}: {trouble}"
    if not options.ipv4_address and not options.ipv6_address:
        yield "neither IPv4 nor IPv6 to listen on: give -4 or -6 an address"


def _files(options: argparse.Namespace, config: RegistryConfig) -> Iterator[str]:
    """Files that the registry would serve, but that nodes or clients would refuse."""
    ca, now = config.authority.trust.ca, datetime.now(UTC)
    if pki.end_of(ca) <= now:
        yield f"--ca {options.ca}: ended on {pki.end_of(ca):%Y-%m-%d}. Renew it with the same key."
    if pki.begin_of(ca) > now:
        yield f"--ca {options.ca}: valid from {pki.begin_of(ca):%Y-%m-%d} only. Check the clock."
    if os.stat(options.key).st_mode & 0o007:
        yield f"--key {options.key}: open to every user of this machine. Run chmod 600 {options.key}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            bits = serialization.load_pem_parameters(config.settings.dh).parameter_numbers().p.bit_length()
        if bits < DH_BITS:
            yield f"--dh {options.dh}: a group of {bits} bits, which OpenVPN refuses"
    except (ValueError, TypeError, AttributeError):
        yield f"--dh {options.dh} has no Diffie-Hellman parameters in PEM form"


def _database(config: RegistryConfig) -> Iterator[str]:
    if config.database.url is not None:
        yield from problems_of_server(config.database.url)
        return
    path = config.database.file
    if not path.is_file() or not os.access(path, os.R_OK):
        return  # it will be made, or was reported
    for problem in problems_of_file(path, [community.prefix for community in config.settings.communities]):
        yield f"database {path}: {problem}"
