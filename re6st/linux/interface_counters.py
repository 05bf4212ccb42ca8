"""What the kernel has counted of an interface (Documentation/ABI/testing/sysfs-class-net-statistics)."""

from __future__ import annotations

from pathlib import Path

INTERFACES = Path("/sys/class/net")


def count(interface: str, counter: str, interfaces: Path = INTERFACES) -> int | None:
    """What one of its counters says, as "tx_bytes"; None where there is none."""
    try:
        return int((interfaces / interface / "statistics" / counter).read_bytes())
    except (OSError, ValueError):
        return None
