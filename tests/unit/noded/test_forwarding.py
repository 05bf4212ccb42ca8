"""Router advertisements are heard while the host forwards, and what the user set is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from re6st.noded.router_advertisements import Advertisements


class Machine:
    """A copy of /proc/sys/net/ipv6/conf: for each interface accept_ra and forwarding."""

    def __init__(self, root: Path, **interfaces: tuple[int, int]) -> None:
        self.root = root
        self.note = root / "note"
        for name, values in interfaces.items():
            (root / name).mkdir()
            for setting, value in zip(("accept_ra", "forwarding"), values, strict=True):
                (root / name / setting).write_text(f"{value}\n")

    def forward(self, on: bool) -> None:
        for file in self.root.glob("*/forwarding"):
            file.write_text(str(int(on)))

    @property
    def accept_ra(self) -> dict[str, int]:
        return {file.parent.name: int(file.read_text()) for file in self.root.glob("*/accept_ra")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(
        tmp_path, all=(1, 0), default=(1, 0), lo=(1, 0), eth0=(1, 0), quiet=(0, 0), always=(2, 0), router=(1, 1)
    )


def test_who_listens_goes_on_and_everything_is_put_back(machine: Machine) -> None:
    before = machine.accept_ra
    own = Advertisements(machine.note, machine.root)
    own.keep()
    assert machine.accept_ra == before | {"default": 2, "eth0": 2}
    machine.forward(True)
    machine.forward(False)
    own.undo()
    assert machine.accept_ra == before


def test_where_the_host_goes_on_forwarding_it_goes_on_listening(machine: Machine) -> None:
    own = Advertisements(machine.note, machine.root)
    own.keep()
    machine.forward(True)
    own.undo()
    assert machine.accept_ra["eth0"] == 2


def test_what_somebody_changed_meanwhile_stays(machine: Machine) -> None:
    own = Advertisements(machine.note, machine.root)
    own.keep()
    (machine.root / "eth0/accept_ra").write_text("0")
    own.undo()
    assert machine.accept_ra["eth0"] == 0


def test_an_interface_that_goes_away_and_a_system_that_refuses(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    (machine.root / "broken/accept_ra").mkdir(parents=True)
    own = Advertisements(machine.note, machine.root)
    own.keep()
    (machine.root / "eth0/accept_ra").unlink()
    own.undo()
    Advertisements(machine.note, machine.root / "none").keep()
    assert caplog.text == ""


@pytest.mark.parametrize("times", [1, 3])
def test_what_a_daemon_that_was_killed_changed_is_put_back_by_the_last_one_after_it(
    machine: Machine, times: int
) -> None:
    before = machine.accept_ra
    for _ in range(times):
        Advertisements(machine.note, machine.root).keep()
        machine.forward(True)  # its babeld runs on
    own = Advertisements(machine.note, machine.root)
    own.keep()
    machine.forward(False)
    own.undo()
    assert machine.accept_ra == before
    assert before["always"] == 2, "what the user set is left alone"
    assert not machine.note.exists()


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[3, null]", "[" * 9000])
def test_a_note_that_cannot_be_read_is_none(machine: Machine, text: str) -> None:
    machine.note.write_text(text)
    own = Advertisements(machine.note, machine.root)
    own.keep()
    own.undo()
    assert machine.accept_ra["always"] == 2


def test_where_others_put_it_back_while_the_host_forwards_it_is_set_again(machine: Machine) -> None:
    own = Advertisements(machine.note, machine.root)
    own.keep()
    machine.forward(True)
    assert own.again() == []
    (machine.root / "eth0/accept_ra").write_text("1")
    assert own.again() == ["eth0"]
    assert machine.accept_ra["eth0"] == 2
    (machine.root / "eth0/accept_ra").write_text("0")
    assert own.again() == [], "the user wants none"
