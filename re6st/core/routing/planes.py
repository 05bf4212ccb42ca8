"""Routing planes: each has its own babeld, with its own port, table and files."""

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
"""The plane that each node has, and by which the policy of the mesh goes."""
