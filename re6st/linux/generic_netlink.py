"""Families of generic netlink (linux/genetlink.h): parts of the kernel that are spoken with by name."""

from __future__ import annotations

import errno
import os
import struct

from re6st.linux.netlink import NetlinkError, NetlinkSocket, malformed, pack_attribute, read_attributes

PROTOCOL = 16
"""Of the socket (linux/netlink.h)."""
HEAD = struct.Struct("=BBxx")
"""With what a message begins: command, version."""
_CONTROL, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_U16 = struct.Struct("=H")


def family(own: NetlinkSocket, name: str) -> int:
    """The number that a family has on this kernel; asking for it loads its module. Raises NetlinkError: ENOENT where
    there is none.
    """
    body = HEAD.pack(_GETFAMILY, 1) + pack_attribute(_FAMILY_NAME, name.encode() + b"\0")
    for _, answer in own.request(_CONTROL, body):
        number = dict(read_attributes(answer[HEAD.size :])).get(_FAMILY_ID, b"")
        if len(number) != _U16.size:
            raise malformed()
        return int(_U16.unpack(number)[0])
    raise NetlinkError(errno.ENOENT, os.strerror(errno.ENOENT))
