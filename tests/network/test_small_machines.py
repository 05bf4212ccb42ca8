"""Boards: little memory, and a card as disk that wears out by each write, and in the end takes none."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed import Bed, Host, Network, Node, wait_until

FORMS = 90
SETTLES = 60
LOOKS = 60
"""Seconds of an idle node that are looked at."""
DAY, SECTOR = 86400, 512
WRITTEN_A_DAY = 20 << 20
"""Bytes, with what the file system's journal adds; a card bears thousands of times its size. Usual: none."""
MEMORY = 80 << 20
"""Bytes of the daemon, babeld and OpenVPN's processes, what they share counted once; usual: 34 MB."""


@contextmanager
def card(host: Host) -> Iterator[Path]:
    """A disk of its own for what a node remembers, and its logs; where the kernel counts the writes to it."""
    image = host.directory / "card"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop,noatime,errors=remount-ro", image, host.state], check=True)
    try:
        found = subprocess.run(["findmnt", "-no", "SOURCE", host.state], check=True, capture_output=True, text=True)
        yield Path("/sys/block", Path(found.stdout.strip()).name, "stat")
    finally:
        subprocess.run(["umount", "--lazy", host.state], check=True)


def written(statistics: Path) -> int:
    """Bytes so far (Documentation/admin-guide/iostats in Linux)."""
    subprocess.run(["sync"], check=True)
    return SECTOR * int(statistics.read_text().split()[6])


def memory(node: Node) -> int:
    def of(pid: int) -> int:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    return sum(map(of, node.host.processes()))


def said(node: Node) -> str:
    return (node.host.log / "re6stnet.log").read_text()


def test_an_idle_node_hardly_writes_and_outlives_its_disk(
    bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    network = Network(bed, 5)
    *first, last = network.nodes
    node = first[3]
    with card(node.host) as statistics:
        network.create()
        for each in first:
            each.enrol(network.url, network.fingerprint)
            each.start()
        network.wait_connected(FORMS, first)
        time.sleep(SETTLES)  # addresses of others are learnt: that is not idle
        before, log, began = written(statistics), len(said(node)), time.monotonic()
        time.sleep(LOOKS)
        days = (time.monotonic() - began) / DAY
        figures = {
            "state a day": round((written(statistics) - before) / days),
            "log a day": round((len(said(node)) - log) / days),
            "memory": memory(node),
            "processes": len(node.host.processes()),
        }
        print(figures, [f"{path.name}: {path.stat().st_size}" for path in node.host.state.iterdir()])
        for name, value in figures.items():
            record_property(name, value)
        assert figures["state a day"] + figures["log a day"] < WRITTEN_A_DAY
        assert figures["memory"] < MEMORY

        # The card is worn out: from now on the kernel lets nobody write.
        Path("/sys/fs/ext4", statistics.parent.name, "trigger_fs_error").write_text("1")
        last.enrol(network.url, network.fingerprint)
        last.start()
        network.wait_connected(FORMS)
        wait_until(lambda: "cache.db: " in said(node), 90, "it says that it remembers nothing new", bed.tails)
        print([line for line in said(node).splitlines() if "cache.db" in line])
        assert node.stop() == 0
