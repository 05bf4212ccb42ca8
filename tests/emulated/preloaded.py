"""Our programs, imported once and forked for each start: under emulation an import takes ten seconds.

`serve SOCKET`: import them, and fork for who asks. `run SOCKET NAME ARGUMENT ...`: be the program of that name; run by
`python -S -E`, for the same reason. A program has the namespaces, the directory, the environment and the files of who
asked, who has its status.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # these imports too would take time
    from collections.abc import Iterator
    from types import ModuleType

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
NAMESPACES = {"mnt": CLONE_NEWNS, "net": CLONE_NEWNET}
PATIENCE = 60.0
"""Seconds for what else is expected within ten or less."""
LONGEST = 1 << 17
KILLED = 137


def run(path: str, words: list[str]) -> int:
    files = [0, 1, 2, *(os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in NAMESPACES)]
    lines = [os.getcwd(), str(len(words)), *words, *(f"{name}={value}" for name, value in os.environ.items())]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(path)
        socket.send_fds(server, ["\0".join(lines).encode()], files)
        number = int(server.recv(16))
        signal.signal(signal.SIGTERM, lambda *_: os.kill(number, signal.SIGTERM))
        return int(server.recv(16) or KILLED)


def serve(path: str) -> None:
    from re6st.cli.conf import main as conf
    from re6st.cli.node import main as node
    from re6st.cli.registry import main as registry
    from re6st.cli.status import main as shown

    be_patient()
    programs = {"conf": conf.main, "node": node.main, "registry": registry.main, "status": shown.main}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen(64)
        while True:
            asked, _ = server.accept()
            if os.fork():
                asked.close()
                continue
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            words = become(asked)
            asked.send(str(os.getpid()).encode())
            status = 1
            try:
                sys.argv = words
                status = programs[words[0]](words[1:])
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            finally:
                sys.stdout.flush()
                asked.send(str(status).encode())
            sys.exit(status)


def be_patient() -> None:
    """Seconds are short here: what the programs expect of others soon may take longer."""
    for module, name in expectations():
        setattr(module, name, PATIENCE)


def expectations() -> Iterator[tuple[ModuleType, str]]:
    """Where the programs say how long they wait for others: modules, and names in them."""
    from re6st import babel
    from re6st.babeld import talk
    from re6st.core.transport import wireguard_agreement, wireguard_rekeying
    from re6st.transport import openvpn, openvpn_client

    for module, names in (
        (babel, ("START_TIME", "COMMAND_TIME")),
        (talk, ("SILENCE",)),
        (openvpn, ("START_TIME",)),
        (openvpn_client, ("CONNECT_TIME", "SILENT_TIME")),
        (wireguard_agreement, ("DIAL_TIME",)),
        (wireguard_rekeying, ("DIAL_TIME",)),
    ):
        yield from ((module, name) for name in names)


def become(asked: socket.socket) -> list[str]:
    """Take the place of who asks; the command line that it wants."""
    import ctypes

    said, files, _, _ = socket.recv_fds(asked, LONGEST, 8)
    directory, count, *rest = said.decode().split("\0")
    os.setsid()
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    libc = ctypes.CDLL(None, use_errno=True)
    for file, kind in zip(files[3:], NAMESPACES.values(), strict=True):
        if libc.setns(file, kind):
            raise OSError(ctypes.get_errno(), "setns")
    for file in files:
        os.close(file)
    os.chdir(directory)
    os.environ.clear()
    for line in rest[int(count) :]:
        name, _, value = line.partition("=")
        os.environ[name] = value
    return rest[: int(count)]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(run(sys.argv[2], sys.argv[3:]))
