"""A unix socket: whoever sees it can connect to it, and nothing but a socket is replaced."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from re6st.service import run_names
from re6st.service.unix_socket import listening_socket


class Observed(socket.socket):
    """A socket that notes what is seen at `path` as long as nobody could connect."""

    path: Path
    seen: list[bool]

    def bind(self, address: str, /) -> None:  # type: ignore[override]
        super().bind(address)
        self.seen.append(self.path.exists())

    def listen(self, backlog: int = 0, /) -> None:
        self.seen.append(self.path.exists())
        super().listen(backlog)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def test_it_is_not_seen_before_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Observed.path, Observed.seen = tmp_path / "control.sock", []
    monkeypatch.setattr(socket, "socket", Observed)
    with listening_socket(Observed.path, backlog=4):
        assert Observed.seen == [False, False]
        assert connects(Observed.path)
        assert [path.name for path in tmp_path.iterdir()] == ["control.sock"]


def test_what_a_killed_process_left_of_one_is_in_nobodys_way(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / run_names.UNREADY_SOCKET))
    with listening_socket(tmp_path / "control.sock", backlog=4):
        assert [path.name for path in tmp_path.iterdir()] == ["control.sock"]
    assert run_names.OLDEST.fullmatch(run_names.UNREADY_SOCKET), "the older software removes it with its directory"
    assert run_names.is_unfinished(run_names.UNREADY_SOCKET)


def test_its_users_are_those_that_were_told(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    with listening_socket(path, backlog=4):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with listening_socket(path, backlog=4, mode=0o660):  # in the place of the first
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert connects(path)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_nothing_but_a_socket_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "control.sock"
    path.mkdir() if kind == "directory" else path.write_text("a user's")
    with pytest.raises(FileExistsError, match="not a socket"):
        listening_socket(path, backlog=4)
    assert [each.name for each in tmp_path.iterdir()] == ["control.sock"]


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listening_socket(tmp_path / "none" / "control.sock", backlog=4)
