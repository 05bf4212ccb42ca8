"""Which transports there are: what makes tunnels, and what of theirs a daemon may leave running."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from re6st.transport import openvpn, openvpn_tunnels


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of tunnel (tunnel.TunnelFactory makes them)."""

    program: str
    """The program that carries it, which goes on when its daemon ends."""
    is_managed: Callable[[Sequence[str], Path, str], bool]
    """Whether a process, by its arguments, is the one of this name in a run directory: we can go on with it."""


OPENVPN = Kind(openvpn.PROGRAM, openvpn_tunnels.is_managed)

KINDS = (OPENVPN,)

PROGRAMS = frozenset(kind.program for kind in KINDS)


def is_managed(argv: Sequence[str], run: Path, name: str) -> bool:
    """Whether a process is that of a tunnel, of any kind, with this name in a run directory."""
    return any(kind.is_managed(argv, run, name) for kind in KINDS)
