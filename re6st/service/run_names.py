"""The names in a run directory: whoever writes there takes its name from here, and the next daemon knows it by them.

That one may be older than we are: versions before this module refused to start where a name did not have the form
`OLDEST`. So every name here has that form, also of a file that is not complete yet.
"""

from __future__ import annotations

import re

from re6st.core import interfaces

LOCK = "lock"
REVOKED = "revoked"
"""A directory: one empty file for each revoked serial number."""
CONTROL_SOCKET = "control.sock"
BABELD_SOCKET = "babeld.ctl"
BINARY_SOCKET = "babeld.sock"
"""The older software's registry speaks a binary protocol there."""
DAEMONS = "re6stnet-daemons.pids"
"""A note of the processes of --daemon."""
ROUTER_ADVERTISEMENTS = "re6stnet-accept-ra.note"
"""A note of the interfaces whose accept_ra was changed."""
PLACED = "re6stnet-placed.note"
"""A note of our addresses, and of what the kernel keeps inside."""
REFUSED = "re6stnet-refused.note"
"""A note of the peers that are refused for a while."""
MULTICAST_CONFIGURATION = "re6stnet-multicast.yaml"
MULTICAST_OUTPUT = "re6stnet-multicast.out"

OLDEST = re.compile(r"lock|revoked|control\.sock|(babeld|re6stnet[0-9a-z-]*)\.[a-z]+", re.ASCII)
"""What every version before took for a file of a node."""

_OURS = re.compile(
    r"lock|revoked|control\.sock|babeld\.(conf|ctl|sock|out|pid|new)|babeld\.conf\.[0-9]+\.tmp"
    r"|re6stnet[0-9a-z.-]*\.(sock|out|json|pids|yaml|note|new|tmp)",
    re.ASCII,
)
"""Not re6stnet.conf nor re6stnet.log: somebody may keep those in a directory that is given as --run by mistake."""
_PROCESS = re.compile(r"(([a-z0-9-]+?)(?:[.-][0-9]+)?)\.(?:sock|out|json|new)", re.ASCII)
_UNFINISHED = re.compile(r"(?:babeld|re6stnet)[0-9A-Za-z._-]*\.(?:new|tmp)", re.ASCII)
_ATTEMPT = re.compile(r"[.-][0-9]+\Z", re.ASCII)


def babeld(name: str, kind: str) -> str:
    """A file of the babeld of that name: its configuration (conf), its socket (ctl), or what it prints (out)."""
    return f"{name}.{kind}"


def is_ours(name: str) -> bool:
    """Whether a node puts a file of this name there: this version or an older one. It may be removed."""
    return _OURS.fullmatch(name) is not None


def attempt(interface: str, number: int) -> str:
    """What the process is called that tries address `number` (from 1) of those that share one interface."""
    return interface if number == 1 else f"{interface}-{number}"


def interface_of(process: str) -> str:
    """The interface of a process."""
    return _ATTEMPT.sub("", process)


def process_of(name: str) -> str | None:
    """The OpenVPN process, or the interface, that a file belongs to; None for one of nobody's."""
    found = _PROCESS.fullmatch(name)
    return found[1] if found and interfaces.is_ours(found[2]) else None


def is_unfinished(name: str) -> bool:
    """Whether a file was being written: it got its own name only when it was complete."""
    return _UNFINISHED.fullmatch(name) is not None


def management(process: str) -> str:
    """The socket that an OpenVPN process is driven by."""
    return f"{process}.sock"


def output(process: str) -> str:
    """What an OpenVPN process prints."""
    return f"{process}.out"


def is_output(name: str) -> bool:
    """Whether a program prints into a file of this name."""
    return name.endswith(".out") and is_ours(name)


def record(interface: str) -> str:
    """What the next daemon has to know of the process of an interface."""
    return f"{interface}.json"


def unfinished(name: str) -> str:
    """What a file is called until it is complete."""
    return f"{name.rpartition('.')[0]}.new"
