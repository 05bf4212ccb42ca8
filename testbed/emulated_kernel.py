"""A command of this machine under Debian's own kernel, which qemu emulates: it has what the machine's kernel may lack.

WireGuard, netem, VLANs and whatever else Debian has as a module. It takes no root and no help of the processor, and is
some twenty times slower than the machine. Its files are those of this machine, which it reads over 9p, under an overlay
in its memory: what the command writes is gone with it. `./run` installs what it takes (install_emulator).
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

PLACE = Path(sys.prefix, "emulated")
"""What `./run` put there: boot and lib/modules of Debian's kernel, with what depmod adds, and a static busybox."""
QEMU = "qemu-system-x86_64"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What it needs to see its files. The others it loads from there when something asks for them."""
MEMORY = 2048
"""MiB. What is not used costs nothing here."""
LAST_WORDS = 5000
"""Characters of the kernel's log that are told where it fails: a panic and its trace have more than two thousand."""
BOOT_TIME = 400.0
"""Seconds; usual: 20, and some minutes on a machine that has much else to do."""
TIME = 600.0
"""Seconds for the command, unless told otherwise."""

STARTED = Path("/run/exchange/started")

KERNEL_OPTIONS = (
    "quiet panic=-1 console=ttyS0"
    # Else it reads the time from an emulated device, at each look at the clock.
    " tsc=reliable clocksource=tsc"
    # These guard against other users, and make it much slower.
    " mitigations=off audit=0"
    " random.trust_cpu=on"
)

# Paths without a slash are below what becomes the root.
_INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
for each in /modules/*; do insmod "$each"; done
mkdir /machine /memory
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=500000 machine /machine
mount -t tmpfs -o size=75% memory /memory
mkdir /memory/written /memory/work /memory/root
mount -t overlay -o lowerdir=/machine,upperdir=/memory/written,workdir=/memory/work overlay /memory/root
cd /memory/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t devtmpfs devtmpfs dev
mkdir -p dev/pts dev/shm dev/net
mount -t devpts -o ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mknod dev/net/tun c 10 200
mount -t tmpfs -o mode=755 tmpfs run
mkdir -m 1777 run/tmp
mkdir run/exchange
mount -t 9p -o trans=virtio,version=9p2000.L exchange run/exchange
stty -F dev/ttyS1 raw -echo
exec switch_root /memory/root /bin/sh /run/exchange/start <dev/null >dev/ttyS1 2>&1
"""

# It stays process 1, and as such waits for what lost its parent, which tests look for until it is gone. stty waits
# until all that was printed is out.
_START = """
mkdir -p {modules_there}
mount --bind {modules_here} {modules_there}
ip link set lo up
cd {directory}
echo >/run/exchange/started
{command}
status=$?
stty -F /dev/ttyS1 -echo
echo $status >/run/exchange/status
while :; do sleep 60; done
"""


class EmulatedKernelError(Exception):
    """It cannot be had here, does not boot, or its command does not come to an end."""


def missing() -> str:
    """What this machine lacks for it, in words for the user; empty where it has everything."""
    if not shutil.which(QEMU):
        return f"no {QEMU}: ./run installs it"
    if not (PLACE / "ready").exists():
        return f"no kernel in {PLACE}: ./run fetches it"
    return ""


def inside() -> bool:
    """Whether we run under it."""
    return STARTED.exists()


def run(command: Sequence[str | Path], timeout: float = TIME, output: int | IO[bytes] | None = None) -> int:
    """Run a command in the directory we are in, and give its status.

    What it prints goes to `output`: a file, or ours. Its environment is ours, but for the place of temporary files.
    Raises EmulatedKernelError, with what the kernel said at last.
    """
    if lack := missing():
        raise EmulatedKernelError(lack)
    with tempfile.TemporaryDirectory(prefix="re6st-emulated-") as name:
        place = Path(name)
        log = place / "kernel.log"
        exchange = place / "exchange"
        exchange.mkdir()
        try:
            [kernel] = (PLACE / "boot").glob("vmlinuz-*")
            modules = PLACE / "lib/modules" / kernel.name.partition("-")[2]
            (place / "initramfs").write_bytes(_initramfs(modules))
            (exchange / "start").write_text(_start(modules, command))
            with _machine(_qemu(kernel, place), output) as machine:
                _wait(machine, exchange / "started", BOOT_TIME, "it did not boot")
                _wait(machine, exchange / "status", timeout, "the command was not done")
                return int((exchange / "status").read_text())
        except (EmulatedKernelError, OSError, ValueError) as error:
            said = log.read_text(errors="replace")[-LAST_WORDS:] if log.exists() else ""
            raise EmulatedKernelError(f"emulated kernel: {error}\n{said}".strip()) from None


@contextlib.contextmanager
def _machine(argv: Sequence[str], output: int | IO[bytes] | None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(machine: subprocess.Popen[bytes], sign: Path, seconds: float, else_say: str) -> None:
    """Wait until it has written a file, or is gone."""
    deadline = time.monotonic() + seconds
    while not (sign.exists() and sign.read_text().endswith("\n")):
        if machine.poll() is not None:
            raise EmulatedKernelError(f"{else_say}, and qemu ended with status {machine.returncode}")
        if time.monotonic() > deadline:
            raise EmulatedKernelError(f"{else_say} after {seconds:g} s")
        time.sleep(0.05)


def _qemu(kernel: Path, place: Path) -> list[str]:
    def share(name: str, path: Path | str, options: str) -> list[str]:
        shared = f"local,id={name},path={path},security_model=none,{options}"
        return ["-fsdev", shared, "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"]

    return [
        # It ends with us, however we end.
        *("setpriv", "--pdeathsig", "KILL", QEMU),
        # With two processors one that waits for the other keeps both of the machine's busy: twice the work. Of more
        # instructions (-cpu max) only the boot becomes longer.
        *("-accel", "tcg,tb-size=512", "-machine", "q35", "-cpu", "qemu64", "-smp", "1"),
        # Its clock counts what it has done, a second for a thousand million instructions, and the time that it waits.
        # So it seems fast, and however busy this machine is, nothing takes longer there than programs have patience.
        # That takes half as much work again.
        *("-icount", "shift=0"),
        *("-m", str(MEMORY), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", str(kernel), "-initrd", str(place / "initramfs"), "-append", KERNEL_OPTIONS),
        *("-serial", f"file:{place}/kernel.log", "-serial", "stdio", "-device", "virtio-rng-pci"),
        *share("machine", "/", "readonly=on,multidevs=remap"),
        *share("exchange", place / "exchange", "readonly=off"),
    ]


def _start(modules: Path, command: Sequence[str | Path]) -> str:
    environment = os.environ | {"TMPDIR": "/run/tmp", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"}
    words = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), *map(str, command)]
    return _START.format(
        modules_here=shlex.quote(str(modules)),
        modules_there=shlex.quote(f"/usr/lib/modules/{modules.name}"),
        directory=shlex.quote(os.getcwd()),
        command=shlex.join(words),
    )


# --- what it boots from ---


def _initramfs(modules: Path) -> bytes:
    files = [("bin", 0o40755, b""), ("modules", 0o40755, b""), ("init", 0o100755, _INIT.encode())]
    files.append(("bin/busybox", 0o100755, (PLACE / "busybox").read_bytes()))
    for number, path in enumerate(_needed(modules)):
        content = path.read_bytes()
        if path.suffix == ".xz":  # since Debian 13
            content = lzma.decompress(content)
        files.append((f"modules/{number:02}-{path.name}", 0o100644, content))
    return _archive(files)


def _needed(modules: Path) -> list[Path]:
    """The files of MODULES and of what they need, in the order to load them."""
    needs = dict[str, list[str]]()
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).name.partition(".")[0].replace("-", "_")] = [*reversed(others.split()), path]
    return [modules / path for path in dict.fromkeys(path for name in MODULES for path in needs.get(name, []))]


def _archive(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive of names, modes and contents in the form that the kernel takes (cpio, newc)."""
    parts = []
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]
    return b"".join(parts)


# --- for people ---


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run emulated", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--timeout", type=float, default=TIME, metavar="SECONDS", help="default: %(default)g")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command, and its arguments")
    options = parser.parse_args()
    if not options.command:
        parser.error("which command? For example: ./run emulated ip link add wg0 type wireguard")
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        sys.exit(run(options.command, options.timeout))
    except EmulatedKernelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
