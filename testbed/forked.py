"""Our programs that end by themselves (conf, and commands of registry), on a host of a bed, without a start of Python.

A process imports them once, and forks for each: that takes a tenth of what an interpreter and its imports take, which
was half of all that a network costs until its first packet. What runs is the same code, with a namespace, a directory,
an environment and outputs of its own. The daemons are not started so: what they are in a list of processes, and what
they become when they are replaced, is theirs.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

CLONE_NEWNET = 0x40000000
OWN_NAMESPACE = Path("/proc/self/ns/net")
LONGEST = 1 << 17
"""Bytes of what is asked for; an environment is the longest part of it."""


class Forked:
    """The process that forks. It ends with us, however we end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # Not as a module: the package of the bed would be imported too.
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C at the terminal is for us alone
            )

    def close(self) -> None:
        self._ours.close()
        self._process.wait()

    def run(
        self, namespace: Path, words: Sequence[str], directory: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a program, `words[0]`, to its end. Raises TimeoutExpired, OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = json.dumps([str(directory), list(words), dict(environment)]).encode()
        with ours, open(namespace) as place, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with theirs:
                socket.send_fds(self._ours, [asked], [file.fileno() for file in (theirs, place, out, err)])
            ours.settimeout(timeout)
            pid = b""
            try:
                pid = ours.recv(16)
                status = ours.recv(16) or b"1"
            except TimeoutError:
                if pid:
                    os.kill(int(pid), signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout) from None
            if not pid:
                raise OSError(errno.ESRCH, "the process that forks is gone")
            return subprocess.CompletedProcess(list(words), int(status), _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


# --- the other side ---


def _serve(control: socket.socket) -> None:
    from re6st.cli.conf import main as conf
    from re6st.cli.registry import main as registry

    programs = {"conf": conf.main, "registry": registry.main}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asked, files, _, _ = socket.recv_fds(control, LONGEST, 4)
        if not asked:
            return
        if os.fork() == 0:
            control.close()
            _be(programs, asked, files)
        for file in files:
            os.close(file)


def _be(programs: Mapping[str, Callable[[Sequence[str]], int]], asked: bytes, files: Sequence[int]) -> NoReturn:
    """Take the place of who asks, and be the program."""
    status = 1
    with socket.socket(fileno=files[0]) as answer:
        try:
            answer.send(str(os.getpid()).encode())
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _enter(files[1])
            os.dup2(files[2], 1)
            os.dup2(files[3], 2)
            for file in files[1:]:
                os.close(file)
            directory, words, environment = json.loads(asked)
            os.chdir(directory)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = words
            status = programs[words[0]](words[1:])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            answer.send(str(status).encode())
            os._exit(status)


def _enter(namespace: int) -> None:
    if os.path.samestat(os.fstat(namespace), OWN_NAMESPACE.stat()):
        return  # who is not root could not enter even this one
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        _serve(_control)
