"""Unix sockets that listen: whoever sees one under its name can connect to it."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from re6st.service import run_names
from re6st.service.rundir import give_to_group


def listening_socket(path: Path, *, backlog: int, mode: int = 0o600, group_mode: int | None = None) -> socket.socket:
    """A socket that listens at this path, in the place of a socket that was there. Raises OSError.

    With `group_mode`, the group that may look at the node can use it too, if there is one. It gets its name last: a
    client that came between bind and listen would be refused, as if the daemon had crashed.
    """
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, "there is a file that is not a socket", str(path))
    unready = path.with_name(run_names.UNREADY_SOCKET)
    unready.unlink(missing_ok=True)  # of a process that was killed meanwhile
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        own.bind(str(unready))
        unready.chmod(mode)
        if group_mode is not None:
            with contextlib.suppress(KeyError, PermissionError):
                give_to_group(unready, group_mode)
        own.listen(backlog)
        unready.rename(path)
    except OSError:
        own.close()
        unready.unlink(missing_ok=True)
        raise
    return own
