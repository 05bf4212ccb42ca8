"""What programs can do beyond the deployed protocol, by name: what is said of it, and how it is read.

The protocol number belongs to the deployed software, whose next number will not mean what ours does. So we announce
its number, and agree on all that is ours by names: between node and registry in the offers of `hello`
(client/registry_client.py, registryd/hello.py), between nodes in those of a session (sessions.py). Whoever says no
names has none of this, whatever its protocol number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

NAMES_LIMIT = 64
TEXT_LIMIT = 1024

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)


class ExtensionError(ValueError):
    """What is no list of names."""


class Extension(StrEnum):
    """The names that we know. A name never changes what it means: what is to mean something else gets another."""

    BABEL_HELLO = "babel-hello"
    """babel's hellos are as short as the parameter `babel_hello` says."""
    BABEL_SWITCH_TIME = "babel-switch-time"
    """babel's key changes at the time that the parameter `babel_switch_time` says."""
    LINES = "lines"
    """Neighbours of a node with several lines send by the one that it wishes, by messages (lines.py)."""
    LONGEST_PREFIX = "longest-prefix"
    """The parameter `longest_prefix` says how long the prefixes of members may be."""
    PLANES = "planes"
    """The parameter `planes` says how many routing planes a network has."""
    REGIONS = "regions"
    """The parameter `regions` says how many bits of a prefix tell the region of a node."""
    REGISTRIES = "registries"
    """The parameter `registries` has the URLs of the network's registries."""
    REKEY = "rekey"
    """The calls rekeyCertificate and revokeSuperseded."""
    PRESENT_CERTIFICATE = "present-certificate"
    """The call presentCertificate."""
    REQUIRE = "require"
    """The parameter `require` names extensions without which a node must stop, as `min_protocol` does."""
    SEALED_CALLS = "sealed-calls"
    """Sessions of node and registry with forward secrecy, begun by offers in `hello`."""
    SEALED_MESSAGES = "sealed-messages"
    """Messages between nodes are sealed (seals.py)."""
    FURTHER_LINKS = "further-links"
    """Two nodes have several links of WireGuard, over several lines (further_links.py)."""
    WIREGUARD = "wireguard"
    """Links of WireGuard between nodes are agreed on by messages (wireguard.py)."""


OF_THE_MACHINE = frozenset({Extension.LINES, Extension.WIREGUARD, Extension.FURTHER_LINKS})
"""What a program can do where its machine can: a node announces it to other nodes then, and to nobody else."""
KNOWN = frozenset(Extension) - OF_THE_MACHINE
"""All that this program can do anywhere, and announces."""


def text(names: Iterable[str]) -> str:
    """A list of names, as it is sent."""
    return " ".join(sorted(names))


def read(sent: str) -> frozenset[str]:
    """The names in a list that was sent, also those that we do not know. Raises ExtensionError."""
    if len(sent) > TEXT_LIMIT:
        raise ExtensionError(f"a list of extensions of {len(sent)} characters")
    return checked(sent.split(" ") if sent else ())


def checked(names: Iterable[str]) -> frozenset[str]:
    """The names, each of them well-formed. Raises ExtensionError."""
    names = list(names)
    if len(names) > NAMES_LIMIT:
        raise ExtensionError(f"a list of {len(names)} extensions")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ExtensionError(f"{name[:40]!r} is not the name of an extension")
    return frozenset(names)


def needs_long_hellos(names: frozenset[str]) -> bool:
    """Whether the network's hellos have to be long for a node that announced these names
    (core/registry/hello_choice.py)."""
    return Extension.BABEL_HELLO not in names
