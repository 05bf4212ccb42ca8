"""The options --bulk and --no-probe of re6stnet, about the plane for bulk traffic."""

from __future__ import annotations

import argparse
import pwd
import re
from collections.abc import Sequence
from typing import assert_never

from re6st.cli.options import OptionParser, integer
from re6st.core.machine.bulk_rules import Bulk, BulkKind

KINDS = ", ".join(BulkKind)
LIMIT = 64
"""How many there are at most: each is one more rule for every packet that has no class."""
_CGROUP = re.compile(r"[A-Za-z0-9@:._-][A-Za-z0-9@:._/\\-]{0,250}", re.ASCII)


def add_options(group: argparse._ArgumentGroup) -> None:
    """Both."""
    group.add_argument(
        "--bulk",
        nargs=2,
        metavar=("KIND", "WHAT"),
        action="append",
        default=[],
        help="where the network has two planes, have this go by capacity, if its program sets no traffic class: tcp or"
        " udp PORT, user NAME, cgroup PATH (below /sys/fs/cgroup)",
    )
    group.add_argument(
        "--no-probe",
        action="store_true",
        help="do not send packets to find out what tunnels carry: for lines that are paid by volume",
    )


def bulk_of(p: OptionParser, pairs: Sequence[Sequence[str]]) -> tuple[Bulk, ...]:
    """What they name."""
    if len(pairs) > LIMIT:
        p.error(f"argument --bulk: given {len(pairs)} times: {LIMIT} is the most")
    return tuple(dict.fromkeys(_bulk(p, *pair) for pair in pairs))


def _bulk(p: OptionParser, kind: str, what: str) -> Bulk:
    try:
        found = BulkKind(kind)
    except ValueError:
        p.error(f"argument --bulk: {kind!r} is none of {KINDS}")
    try:
        return Bulk(found, _value(found, what))
    except (ValueError, argparse.ArgumentTypeError) as error:
        p.error(f"argument --bulk: {error}")


def _value(kind: BulkKind, what: str) -> str:
    """As our nftables table names it. Raises ValueError, ArgumentTypeError."""
    match kind:
        case BulkKind.TCP | BulkKind.UDP:
            return str(integer(1, 65535)(what))
        case BulkKind.USER:
            try:
                return str(pwd.getpwnam(what).pw_uid)
            except KeyError:
                raise ValueError(f"there is no user {what!r}") from None
        case BulkKind.CGROUP:
            path = what.strip("/")
            if not _CGROUP.fullmatch(path):
                raise ValueError(f"{what!r} is not the path of a control group, such as system.slice/a.service")
            return path
        case _:
            assert_never(kind)
