"""What the planes of a machine have to themselves, and that none takes the routes of another one for its own."""

from __future__ import annotations

import re
from collections import Counter

from re6st.core.routing import planes
from re6st.core.routing.planes import MAIN, TABLES, Plane

ALL = [each for each in vars(planes).values() if isinstance(each, Plane)]
LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE = 255, 254, 253
"""What the kernel uses itself (linux/rtnetlink.h)."""


def test_each_plane_has_files_a_port_and_a_table_of_its_own() -> None:
    for own in ([each.name for each in ALL], [each.port for each in ALL], [each.table for each in ALL]):
        assert [value for value, count in Counter(own).items() if count > 1] == []


def test_each_plane_beside_the_main_one_is_known_by_its_files_and_its_table() -> None:
    for plane in ALL:
        if plane is not MAIN:
            assert re.fullmatch(r"re6stnet-plane-[a-z0-9]+", plane.name)
            assert plane.table in TABLES


def test_babeld_can_name_the_tables_and_the_kernel_has_no_other_use_for_them() -> None:
    assert TABLES[0] > 0
    assert TABLES[-1] < min(LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE), "babeld takes the last eight bits of a number"


def test_a_route_is_that_of_one_plane_wherever_the_user_has_the_main_one_put_its_own() -> None:
    beside = [Plane(f"re6stnet-plane-{table}", table, table) for table in TABLES]
    for table in range(1, LOCAL_TABLE):
        owners = [plane for plane in (MAIN, *beside) if plane.has(table)]
        assert [plane.table for plane in owners] == [table if table in TABLES else None]
