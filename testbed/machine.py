"""A host of the bed as a whole machine: its own files, its own processes, and systemd to run them.

The files are those of this machine under an overlay in memory, so packages can be installed, services run, everything
broken, and nothing of it is left; but what is known of packages is a copy (see testbed.packages). systemd is the real
one, process 1 of a process namespace, without the units that would touch the kernel or the devices of the machine
beneath.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from testbed import packages
from testbed.host import Host
from testbed.namespace import BedError
from testbed.wait import wait_until

TARGET = "bed.target"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
BOOT_TIME = 120.0
"""Seconds; usual: 1 to 3."""

# Arguments: an empty directory, the cgroup, the script that boots, what is known of packages.
_ENTER = """
echo $$ >"$2/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --cgroup --ipc --uts sh -euc "$3" sh "$1" "$4"
"""

_BOOT = (
    """
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
cp -a "$2/." "$1/upper"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for each in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs $each; done
chmod 1777 tmp
mkdir dev/net dev/pts dev/shm
for each in """
    + " ".join(DEVICES)
    + f"""; do cp -a "/dev/$each" "dev/$each"; chmod 666 "dev/$each"; done  # as udev does
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
rm -rf usr/lib/systemd/system/*.target.wants usr/lib/systemd/system-generators etc/systemd/system/* etc/resolv.conf
rm -rf etc/re6stnet var/lib/re6st* var/log/re6st* usr/sbin/policy-rc.d
printf '[Unit]\\nRequires=multi-user.target systemd-journald.service\\nAfter=multi-user.target\\n' \\
    >etc/systemd/system/{TARGET}
mkdir -p old
pivot_root . old
umount -l /old
export container=bed
exec /usr/lib/systemd/systemd --system --unit={TARGET} --show-status=no
"""
)


def cgroups() -> Path:
    """Where cgroup2 is mounted. Raises BedError."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[words.index("-") + 1] == "cgroup2":
            return Path(words[4])
    raise BedError("no cgroup2 is mounted, which systemd needs")


class Machine:
    """systemd and what it runs, on a host of the bed. Use it with `with`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._cgroup = cgroups() / f"{host.bed.name}-{host.name}"
        self._outer: subprocess.Popen[bytes] | None = None
        self.pid = 0
        """Its process 1, as seen from outside."""

    def __enter__(self) -> Machine:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _boot(self) -> None:
        directory = self.host.directory / "machine"
        directory.mkdir()
        self._cgroup.mkdir()
        known = self.host.bed.directory / ".packages"
        if not known.exists():
            known.mkdir()
            packages.copy(known)
        # Not by ip-netns, which hides the cgroups.
        argv = ["nsenter", f"--net={self.host.namespace.path}", "sh", "-euc", _ENTER, "sh"]
        with open(self.host.log / "systemd.log", "ab") as log:
            self._outer = subprocess.Popen(
                [*argv, directory, self._cgroup, _BOOT, known],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        self.pid = int(wait_until(children.read_text, BOOT_TIME, "a process 1", self.host.bed.tails))
        ready = ["systemctl", "is-active", "--quiet", TARGET]
        wait_until(lambda: self.try_run(ready).returncode == 0, BOOT_TIME, "systemd up", self.host.bed.tails)

    def close(self) -> None:
        """End every process of it."""
        if self._outer is not None:
            self._outer.kill()  # and so its process 1, and so all
            self._outer.wait()
            self._outer = None
        deadline = time.monotonic() + 10
        while self._cgroup.exists() and time.monotonic() < deadline:
            for path, _, _ in os.walk(self._cgroup, topdown=False):
                with contextlib.suppress(OSError):  # its processes are just ending
                    os.rmdir(path)
            time.sleep(0.02)

    # --- programs and files ---

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs a program as root of the machine, in /etc/re6stnet where that is there."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net", "--root"]
        where = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "SYSTEMD_PAGER="]
        into = ["sh", "-c", 'cd /etc/re6stnet 2>/dev/null || cd /; exec "$@"', "sh"]
        return [*enter, *where, *into, *map(str, argv)]

    def try_run(self, argv: Sequence[str | Path], timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            self.argv(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )

    def run(self, *argv: str | Path) -> str:
        """What a program prints that ends well. Raises BedError."""
        done = self.try_run(argv)
        if done.returncode:
            raise BedError(f"{' '.join(map(str, argv))}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def path(self, path: str | Path) -> Path:
        """A file of the machine, as seen from outside."""
        return Path(f"/proc/{self.pid}/root") / str(path).lstrip("/")

    def journal(self, unit: str) -> str:
        """What a unit said."""
        return self.try_run(["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout

    def pids(self, unit: str) -> dict[int, str]:
        """The processes of a unit, as seen from outside: their ids, and the names of their programs."""
        found = {}
        for directory, _, _ in os.walk(self._cgroup):  # which bears that a unit ends meanwhile, as rglob does not
            pids = []
            if f"{unit}.service" in Path(directory).parts:
                with contextlib.suppress(OSError):
                    pids = (Path(directory) / "cgroup.procs").read_text().split()
            for pid in map(int, pids):
                with contextlib.suppress(OSError):
                    found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found
