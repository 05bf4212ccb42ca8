"""Which interface a new WireGuard link of ours gets."""

from __future__ import annotations

from pathlib import Path

from re6st.noded.link_table import LinkTable

NAMES = ["re6stnet-wg1", "re6stnet-wg2", "re6stnet-wg3"]


def test_a_name_comes_again_only_after_all_others(tmp_path: Path) -> None:
    """babeld is started anew for an interface that it knew as another one, and some packets are lost."""
    table = LinkTable(tmp_path)
    assert [table.free(NAMES, ()) for _ in range(6)] == NAMES + NAMES
    assert table.free(NAMES, {"re6stnet-wg1"}) == "re6stnet-wg2"
    assert table.free(NAMES, {"re6stnet-wg3"}) == "re6stnet-wg1"
    assert table.free(NAMES, set(NAMES)) is None
    assert table.free([*NAMES, "re6stnet-wg4"], ()) == "re6stnet-wg4", "one that was never there comes first"
