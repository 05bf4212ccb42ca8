"""Who gets into the run directory still commands nothing: OpenVPN's sockets are open to everybody who does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed import Bed, Network

NOBODY = 65534


@contextmanager
def nobody() -> Iterator[None]:
    """Be somebody who owns nothing."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def told(path: Path) -> bytes:
    """What a socket says to somebody who asks for the number of the process."""
    said = b""
    with suppress(OSError), nobody(), socket.socket(socket.AF_UNIX) as own:
        own.settimeout(5)
        own.connect(str(path))
        own.sendall(b"pid\n")
        while data := own.recv(4096):
            said += data
    return said


def test_a_stranger_is_not_listened_to(bed: Bed) -> None:
    network = Network(bed, 2)
    network.start()
    network.wait_connected(90)
    node = network.nodes[1]
    run = node.host.run_directory
    node.kill()  # OpenVPN hears one at a time: there is a place now
    for directory in (run, *run.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    sockets = [*run.glob("re6stnet*.sock"), run / "babeld.ctl"]
    assert len(sockets) > 1
    assert [path.name for path in sockets if told(path)] == []
    node.start()
    network.wait_connected(30)
