"""The kinds of tunnels that a program carries, which runs on when its daemon ends: how the next one knows it again.

A kind whose tunnels end with the daemon is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from re6st.transport import openvpn, openvpn_tunnels


@dataclass(frozen=True, slots=True)
class TunnelKind:
    """One kind of tunnel."""

    program: str
    """What its processes run."""
    is_managed: Callable[[Sequence[str], Path, str], bool]
    """Whether a process, by its arguments, is the one of this name in a run directory: we can go on with it."""


OPENVPN = TunnelKind(openvpn.PROGRAM, openvpn_tunnels.is_managed)

KINDS = (OPENVPN,)

PROGRAMS = frozenset(kind.program for kind in KINDS)


def is_managed(argv: Sequence[str], run: Path, name: str) -> bool:
    """Whether a process is that of a tunnel, of any kind, with this name in a run directory."""
    return any(kind.is_managed(argv, run, name) for kind in KINDS)
