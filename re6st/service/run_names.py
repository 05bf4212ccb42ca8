"""The names in a run directory: every module that writes there takes its names from here, and the next daemon
recognises them.

The next daemon may be older: versions before this module refuse to start if a name does not have the form `OLDEST`. So
every name here has this form, even that of a file that is not complete yet.
"""

from __future__ import annotations

import re

from re6st.core import interfaces

LOCK = "lock"
REVOKED = "revoked"
"""A directory with one empty file for each revoked serial number."""
CONTROL_SOCKET = "control.sock"
BABELD_SOCKET = "babeld.ctl"
BINARY_SOCKET = "babeld.sock"
"""The socket on which the older software's registry expects a binary protocol."""
DAEMONS = "re6stnet-daemons.pids"
"""A record of the processes of --daemon."""
ROUTER_ADVERTISEMENTS = "re6stnet-accept-ra.note"
"""A record of the interfaces whose accept_ra was changed."""
BABELD_SYSCTLS = "re6stnet-sysctls.note"
"""A record of what the sysctls were that babeld changes."""
MPTCP = "re6stnet-mptcp.note"
"""A record of what the limits of MPTCP were, and of where our endpoints are."""
PLACED = "re6stnet-placed.note"
"""A record of our addresses, and of what the kernel keeps inside the network."""
REFUSED = "re6stnet-refused.note"
"""A record of the peers that are refused for a while."""
MULTICAST_CONFIGURATION = "re6stnet-multicast.yaml"
MULTICAST_OUTPUT = "re6stnet-multicast.out"

UNREADY_SOCKET = "re6stnet-socket.new"
"""A socket of a daemon until it listens."""

OLDEST = re.compile(r"lock|revoked|control\.sock|(babeld|re6stnet[0-9a-z-]*)\.[a-z]+", re.ASCII)
"""Names that every earlier version recognised as files of a node."""

_OURS = re.compile(
    r"lock|revoked|control\.sock|(?:babeld|re6stnet-plane-[a-z0-9]+)\.(conf|ctl|sock|out|pid|new)|babeld\.conf\.[0-9]+\.tmp"
    r"|re6stnet[0-9a-z.-]*\.(sock|out|json|pids|yaml|note|new|tmp)",
    re.ASCII,
)
"""re6stnet.conf and re6stnet.log are not among them: somebody may have these in a directory that is given as --run by
mistake.
"""
_PROCESS = re.compile(r"(([a-z0-9-]+?)(?:[.-][0-9]+)?)\.(?:sock|out|json|new)", re.ASCII)
_UNFINISHED = re.compile(r"(?:babeld|re6stnet)[0-9A-Za-z._-]*\.(?:new|tmp)", re.ASCII)
_ATTEMPT = re.compile(r"[.-][0-9]+\Z", re.ASCII)


def babeld(name: str, kind: str) -> str:
    """A file of the babeld of that name: its configuration (conf), its socket (ctl), or its output (out)."""
    return f"{name}.{kind}"


def is_ours(name: str) -> bool:
    """Whether a node, of this version or an older one, makes a file of this name. It may be removed."""
    return _OURS.fullmatch(name) is not None


def attempt(interface: str, number: int) -> str:
    """The name of the process for address `number` (from 1), of several processes that share one interface."""
    return interface if number == 1 else f"{interface}-{number}"


def interface_of(process: str) -> str:
    """The interface of a process."""
    return _ATTEMPT.sub("", process)


def process_of(name: str) -> str | None:
    """The OpenVPN process, or the interface, to which a file belongs; None if there is none."""
    found = _PROCESS.fullmatch(name)
    return found[1] if found and interfaces.is_ours(found[2]) else None


def is_unfinished(name: str) -> bool:
    """Whether a file was not complete: it gets its real name only when it is."""
    return _UNFINISHED.fullmatch(name) is not None


def management(process: str) -> str:
    """The socket that controls an OpenVPN process."""
    return f"{process}.sock"


def output(process: str) -> str:
    """The output of an OpenVPN process."""
    return f"{process}.out"


def is_output(name: str) -> bool:
    """Whether a program writes its output to a file of this name."""
    return name.endswith(".out") and is_ours(name)


def record(interface: str) -> str:
    """What the next daemon has to know about the process of an interface."""
    return f"{interface}.json"


def unfinished(name: str) -> str:
    """The name of a file until it is complete."""
    return f"{name.rpartition('.')[0]}.new"
