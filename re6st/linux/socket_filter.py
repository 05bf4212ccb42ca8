"""Filters of sockets, so that what we do not want to hear does not wake us (linux/filter.h)."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

# struct sock_filter (code, where to go on if it holds or not, operand), struct sock_fprog
_ATTACH_FILTER, _STEP, _PROGRAM = 26, struct.Struct("=HBBI"), struct.Struct("HP")
LOAD_BYTE, LOAD_HALF, IS_EQUAL, RETURN = 0x30, 0x28, 0x15, 0x06
ALL, NOTHING = (RETURN, 0, 0, 0xFFFFFFFF), (RETURN, 0, 0, 0)
"""The last steps: to have a packet, or not."""


def attach(own: socket.socket, steps: Sequence[tuple[int, int, int, int]]) -> None:
    """Have a socket hear only what these steps let through. Raises OSError."""
    code = ctypes.create_string_buffer(b"".join(_STEP.pack(*step) for step in steps))
    own.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, _PROGRAM.pack(len(steps), ctypes.addressof(code)))
