"""Which of the kernel's settings babeld needs, but cannot have where /proc/sys is read-only, as in containers.

babeld 1.12 changes each of these that has another value, and ends if it cannot. Whoever starts the container can set
them before; we can only name them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from re6st.view.findings import Finding

WANTED = {
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.forwarding": "1",
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}
"""The last one is for new interfaces, for which babeld sets it one by one."""
BETTER = {
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
    "net.ipv6.conf.default.accept_ra": "0",
}
"""What we set on each of our links, see tap_settings in core/machine/wanted_state.py."""
SETTINGS = Path("/proc/sys")


def is_fixed(settings: Path = SETTINGS) -> bool:
    """Whether nobody here can change the kernel's settings, whatever rights he has."""
    try:
        return bool(os.statvfs(settings / "net").f_flag & os.ST_RDONLY)
    except OSError:
        return False


def router_settings(settings: Path = SETTINGS) -> Iterator[Finding]:
    """The settings for which babeld will end, and those without which tunnels come up later."""
    if not is_fixed(settings):
        return
    if wrong := _others(settings, WANTED):
        text = f"{settings} is read-only, and babeld ends without {', '.join(wrong)}"
        yield Finding("fail", "machine", text, _remedy(wrong))
    if wrong := _others(settings, BETTER):
        text = f"{settings} is read-only, and each new tunnel waits a second without {', '.join(wrong)}"
        yield Finding("warn", "machine", text, _remedy(wrong))


def _others(settings: Path, wanted: Mapping[str, str]) -> list[str]:
    """Those that have another value, as they should be; a setting that does not exist is not needed."""
    found = []
    for name, value in wanted.items():
        with suppress(OSError):
            if (settings / name.replace(".", "/")).read_text().strip() != value:
                found.append(f"{name}={value}")
    return found


def _remedy(settings: Iterable[str]) -> str:
    return "set it from outside, as by podman run " + " ".join(f"--sysctl {each}" for each in settings)
