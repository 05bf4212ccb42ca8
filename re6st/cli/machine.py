"""What this machine has, or lacks, of a node's needs: device, rights, programs, kernel. Nothing is changed.

This is for re6st-status netcheck and bugreport, and for re6stnet --check; each function yields findings.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from re6st.core import interfaces
from re6st.linux.process import MissingProgram, find_program
from re6st.view.findings import Finding

CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""Rights of a node that does not run as root, by their bits in linux/capability.h."""
PROGRAMS = {"babeld": ["-V"], "openvpn": ["--version"]}
PATIENCE = 5.0
"""Seconds for a program to print its version."""
CONFIGURATION_LIMIT = 4 << 20
_VERSION = re.compile(r"\d+(\.\d+)+\S*")


def tun_device(path: Path = Path("/dev/net/tun")) -> Iterator[Finding]:
    """The device with which tunnels are made."""
    if path.is_char_device():
        yield Finding("ok", "machine", "tun device")
    else:
        yield Finding("fail", "machine", f"no {path}", "modprobe tun; a container must be given the device")


def capabilities(pid: int | None = None) -> Iterator[Finding]:
    """The rights of a process (None: of this one)."""
    try:
        status = Path(f"/proc/{'self' if pid is None else pid}/status").read_text()
    except OSError:  # the process has ended, or is hidden from us
        return
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.M)
    if found is None:
        return
    missing = [name for name, bit in CAPABILITIES.items() if not int(found[1], 16) >> bit & 1]
    if missing:
        remedy = "run as root, or as the unit re6stnet.service does"
        yield Finding("fail", "machine", f"{', '.join(missing)} missing", remedy)
    else:
        yield Finding("ok", "machine", "CAP_NET_ADMIN")


def programs() -> Iterator[Finding]:
    """babeld and OpenVPN, with their versions."""
    for name in PROGRAMS:
        version = version_of(name)
        if version is None:
            yield Finding("fail", "machine", f"no program {name}", f"apt install {name}")
        else:
            yield Finding("ok", "machine", f"{name} {version}".rstrip())


def version_of(name: str) -> str | None:
    """The version of babeld or openvpn; None if it is not installed, empty if it does not tell."""
    try:
        argv = [find_program(name), *PROGRAMS[name]]
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False
        )
    except MissingProgram:
        return None
    except (OSError, subprocess.SubprocessError):
        return ""
    found = _VERSION.search(done.stdout)
    return found[0] if found else ""


def source_routes(known: bool | None = None) -> Iterator[Finding]:
    """Whether the kernel has IPv6 routes by source: as a node found out (`known`), or by the kernel's configuration."""
    has = _configured("CONFIG_IPV6_SUBTREES") if known is None else known
    if has:
        yield Finding("ok", "machine", "IPV6_SUBTREES")
    elif has is not None:
        text = "the kernel has no routes by source (IPV6_SUBTREES): this node cannot use the network's gateways"
        yield Finding("warn", "machine", text, "use a kernel that has them, if the network has gateways")


def _configured(option: str) -> bool | None:
    """Whether the running kernel was built with an option; None if that is not known."""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{os.uname().release}")):
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                return f"\n{option}=y\n".encode() in file.read(CONFIGURATION_LIMIT)
        except (OSError, EOFError):
            continue
    return None


def advertisements(settings: Path = Path("/proc/sys/net/ipv6/conf")) -> Iterator[Finding]:
    """Interfaces that forward, and so ignore router advertisements (ip-sysctl; noded/router_advertisements.py)."""
    for setting in sorted(settings.glob("*/accept_ra")):
        name = setting.parent.name
        if name in ("all", "default", "lo") or interfaces.is_ours(name):
            continue
        try:
            trapped = setting.read_text().strip() == "1" and (setting.parent / "forwarding").read_text().strip() != "0"
        except OSError:  # it disappeared
            continue
        if trapped:
            text = f"{name} accept_ra=1 while forwarding: its IPv6 default route will go"
            yield Finding("warn", "accept_ra", text, f"sysctl net.ipv6.conf.{name}.accept_ra=2")
