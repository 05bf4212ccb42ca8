"""Routing planes: each has its own babeld, with its own port, table and files.

The class of a packet says by which plane a node leads it on. This makes no circle, although there may be nodes without
the throughput plane, and each plane changes its routes for itself: a packet that leaves the throughput plane, as a node
has no route there for it, loses its class (core/machine/packet_rules.py), and never comes back into it. So it goes by
latency to the first node that has the throughput plane, by throughput from there to where that ends, and by latency
again: three ways at most, on each of which babel makes no circle (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.routing.babel_settings import PORT

TABLES = range(224, 240)
"""The kernel's tables for planes beside the main one; other programs are to use others. babeld 1.12 takes only the last
eight bits of the number of a table: 6697 would be 41, and 510 the main table.
"""


@dataclass(frozen=True, slots=True)
class Plane:
    """What distinguishes one plane on a machine from another."""

    name: str
    """How the names of its files begin: NAME.conf, NAME.log and so on. It is `babeld` or
    `re6stnet-plane-WORD`: each version knows these files as those of a node.
    """
    port: int = PORT
    """The UDP port; its neighbours have the same one."""
    table: int | None = None
    """The kernel's table for its routes, and no others: one of TABLES. None for the main plane: babeld's default, the
    main table, or what the user says (-B).
    """

    @property
    def babeld(self) -> str:
        """What log lines call its babeld."""
        return "babeld" if self.table is None else f"babeld ({self.name})"

    def has(self, table: int) -> bool:
        """Whether a babeld's routes in this table of the kernel are those of this plane."""
        return table not in TABLES if self.table is None else table == self.table


MAIN = Plane("babeld")
"""The plane that each node has, and by which the policy of the mesh goes: it leads by latency."""
THROUGHPUT_TABLE = TABLES[0]
THROUGHPUT = Plane("re6stnet-plane-throughput", PORT + 1, THROUGHPUT_TABLE)
"""The plane that leads bulk traffic, by capacity: of nodes whose network has two (noded/throughput.py)."""


CS1, LE = 8, 1
"""Classes of packets that may wait, as numbers of six bits (DSCP): RFC 3662, which OpenSSH follows, and RFC 8622."""
BULK = (CS1, LE)
"""Those that go by the throughput plane."""
ECN_BITS = 2
"""What comes after the class in the byte of the header."""
MARK = 0x0400
"""The bit of a packet's mark by which our nftables table asks for the route of the throughput plane."""
OURS = 0x1000
"""The bit by which our table has what this machine sends go by the throughput plane: a connection keeps its route when
a program changes its class, as OpenSSH does once it knows what it is for. Neither bit is one of Kubernetes (0xc000), of
published ports of containers (0x2000), of Tailscale (0xff0000) or of wg-quick (0xca6c)."""
PRIORITY = 14500
"""Of the first of our rules: before the main table's, and before others that lead what this machine sends. The question
must not be answered by their tables: packets that leave the plane would keep their class."""
