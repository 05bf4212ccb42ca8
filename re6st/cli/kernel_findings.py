"""What others changed in this machine's kernel that a node needs, for --check and netcheck; nothing is changed here.

A running node restores what it can, and reports the rest itself (noded/kernel_care.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from re6st.core.machine.forward_chain import blocked
from re6st.core.machine.packet_rules import TABLE
from re6st.linux.kept_state import SYSCTL
from re6st.linux.nftables import Nft, NftError
from re6st.linux.process import MissingProgram
from re6st.noded.firewall_check import REMEDY
from re6st.view.findings import Finding


def ipv6(main_interface: str = "lo", sysctl: Path = SYSCTL) -> Iterator[Finding]:
    """Whether IPv6 is switched off, in general or on interfaces that get our addresses."""
    directory = sysctl / "ipv6/conf"
    if not directory.is_dir():
        yield Finding("fail", "ipv6", "this kernel has no IPv6", "boot it without ipv6.disable=1")
        return
    for name in dict.fromkeys(("all", "default", "lo", main_interface)):
        path = directory / name / "disable_ipv6"
        try:
            if path.read_text().strip() != "1":
                continue
        except OSError:  # no such interface
            continue
        setting = f"net.ipv6.conf.{name}.disable_ipv6"
        if _is_read_only(path):
            yield Finding("fail", "ipv6", f"{setting} is 1, and cannot be changed here", f"sysctl {setting}=0 outside")
        else:
            text = f"{setting} is 1: a node switches IPv6 on again for its own interfaces, lo and --main-interface"
            yield Finding("warn", "ipv6", text, f"sysctl {setting}=0")


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def firewall() -> Iterator[Finding]:
    """Whether others' rules drop what a node forwards, as far as we may read them."""
    try:
        found = blocked(asyncio.run(_rules()), TABLE)
    except (MissingProgram, NftError, KeyError, TypeError, AttributeError):
        return
    if found is not None:
        verb = "drops all" if found.certain else "may drop"
        yield Finding("warn", "firewall", f"a firewall {verb} that a node forwards ({found.where})", REMEDY)


async def _rules() -> object:
    nft = Nft()
    try:
        return await nft.listing("ruleset", contents=False)
    finally:
        nft.close()


def interface(name: str, interfaces: Path = Path("/sys/class/net")) -> Iterator[Finding]:
    """Whether the interface for our address exists, and is up."""
    path = interfaces / name
    if not path.exists():
        text = f"--main-interface {name}: not there, so the node has no address"
        yield Finding("warn", "interface", text, "it waits for it; see ip link")
        return
    try:
        is_up = int((path / "flags").read_text(), 16) & 1
    except (OSError, ValueError):
        return
    if not is_up:
        text = f"--main-interface {name}: down, so the node has no address"
        yield Finding("warn", "interface", text, f"ip link set {name} up")
