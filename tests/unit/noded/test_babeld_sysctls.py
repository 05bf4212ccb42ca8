"""What babeld sets in the kernel is put back at the end, and what somebody else set meanwhile is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from re6st.noded.babeld_sysctls import BY_BABELD, EVERYWHERE, BabeldSysctls


class Machine:
    """A copy of /proc/sys/net, with a LAN."""

    def __init__(self, root: Path) -> None:
        self.root, self.note = root, root / "note"
        self.names = (*EVERYWHERE, "ipv4/conf/eth1/rp_filter")
        for name in self.names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        self.set(dict.fromkeys(self.names, "0") | {name: "2" for name in self.names if name.endswith("rp_filter")})

    def node(self) -> BabeldSysctls:
        return BabeldSysctls(self.note, ["eth1"], self.root)

    def set(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            (self.root / name).write_text(f"{value}\n")

    def babeld_starts(self) -> None:
        self.set({name: BY_BABELD[name.rpartition("/")[2]] for name in self.names})

    @property
    def values(self) -> dict[str, str]:
        return {name: (self.root / name).read_text().strip() for name in self.names}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_a_killed_babeld_left_is_put_back(machine: Machine) -> None:
    before, own = machine.values, machine.node()
    own.keep()
    machine.babeld_starts()
    assert machine.values != before
    own.undo()
    assert machine.values == before
    assert not machine.note.exists()


def test_the_next_daemon_puts_back_what_was_there_before_the_first(machine: Machine) -> None:
    before = machine.values
    machine.node().keep()
    machine.babeld_starts()  # and the daemon is killed
    later = machine.node()
    later.keep()
    later.undo()
    assert machine.values == before


def test_so_does_who_only_clears_up(machine: Machine) -> None:
    before = machine.values
    machine.node().keep()
    machine.babeld_starts()
    cleaner = BabeldSysctls(machine.note, sysctl=machine.root)
    cleaner.recall()
    cleaner.undo()
    assert machine.values == before


def test_what_somebody_else_set_meanwhile_stays(machine: Machine) -> None:
    own = machine.node()
    own.keep()
    machine.babeld_starts()
    machine.set({"ipv4/conf/all/rp_filter": "1"})
    own.undo()
    assert machine.values["ipv4/conf/all/rp_filter"] == "1"


def test_between_two_daemons_what_was_set_counts(machine: Machine) -> None:
    machine.node().keep()
    machine.babeld_starts()
    machine.set({"ipv4/conf/all/rp_filter": "1"})
    later = machine.node()
    later.keep()
    machine.babeld_starts()
    later.undo()
    assert machine.values["ipv4/conf/all/rp_filter"] == "1"


def test_a_router_stays_one(machine: Machine) -> None:
    machine.babeld_starts()  # as its user wants it
    before, own = machine.values, machine.node()
    own.keep()
    machine.babeld_starts()
    own.undo()
    assert machine.values == before


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "{",
        '{"ipv6/conf/all/forwarding": 0}',
        '{"../../kernel/panic": "1"}',
        '{"ipv6/conf/all/forwarding": "0\\n1"}',
        "\xff",
    ],
)
def test_a_damaged_note_changes_nothing(machine: Machine, text: str) -> None:
    machine.babeld_starts()
    before = machine.values
    machine.note.write_text(text, "latin-1")
    own = machine.node()
    own.recall()
    own.undo()
    assert machine.values == before
