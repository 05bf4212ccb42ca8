"""Boards: little memory, and a card as disk that wears out by each write, and in the end takes none."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed import Bed, Host, Network, Node, wait_until

FORMS = 180
SETTLES = 240
"""Seconds that a node may take until it is idle: on a busy machine tunnels change for a while."""
LOOKS = 40
"""Seconds of an idle node that are looked at. One that writes more often than that is never idle."""
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


def written(host: Host, statistics: Path) -> int:
    """Bytes so far (Documentation/admin-guide/iostats in Linux)."""
    subprocess.run(["sync", "-f", host.state], check=True)
    return SECTOR * int(statistics.read_text().split()[6])


def memory(node: Node) -> int:
    def of(pid: int) -> int:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    found = 0
    for process in node.host.processes():
        with suppress(OSError, StopIteration):  # it has ended meanwhile
            found += of(process)
    return found


def said(node: Node) -> str:
    return (node.host.log / "re6stnet.log").read_text()


class Look:
    """What a node writes in LOOKS seconds: as often as it has more to write than an idle one, they begin anew."""

    def __init__(self, node: Node, statistics: Path) -> None:
        self.node = node
        self.statistics = statistics
        self.figures: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._before = self._sizes()

    def _sizes(self) -> dict[str, int]:
        return {"state": written(self.node.host, self.statistics), "log": len(said(self.node))}

    def is_over(self) -> bool:
        time.sleep(1)  # a look costs something itself
        sizes, passed = self._sizes(), time.monotonic() - self._began
        new = {name: size - self._before[name] for name, size in sizes.items()}
        self.figures = {f"{name} a day": round(size / passed * DAY) for name, size in new.items()}
        if sum(new.values()) > WRITTEN_A_DAY * LOOKS / DAY:
            self._begin()
            return False
        return passed >= LOOKS

    def __str__(self) -> str:
        return f"{self.figures}\n{self.node.host.bed.tails()}"


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
        # First addresses of others are learnt: that is not idle.
        look = Look(node, statistics)
        wait_until(look.is_over, SETTLES, f"{LOOKS} s in which next to nothing is written", look.__str__)
        figures = {**look.figures, "memory": memory(node), "processes": len(node.host.processes())}
        print(figures, [f"{path.name}: {path.stat().st_size}" for path in node.host.state.iterdir()])
        for name, value in figures.items():
            record_property(name, value)
        assert figures["memory"] < MEMORY

        # The card is worn out: from now on the kernel lets nobody write.
        Path("/sys/fs/ext4", statistics.parent.name, "trigger_fs_error").write_text("1")
        last.enrol(network.url, network.fingerprint)
        last.start()
        network.wait_connected(FORMS)
        network.call("updateHMAC")  # it has something to remember, whoever its neighbours are
        wait_until(lambda: "cache.db: " in said(node), 90, "it says that it remembers nothing new", bed.tails)
        print([line for line in said(node).splitlines() if "cache.db" in line])
        assert node.stop() == 0
