"""The deployed software, from PyPI, in a virtual environment of its own.

It is made once, in $RE6ST_INTEROP_VENV (default: .venv-interop in the checkout); Debian needs python3-venv for it, and
on machines for which miniupnpc has no wheel gcc and python3-dev. Only the programs' command lines are used.

Its nodes want a patched babeld and an old OpenVPN; wrappers that stand first in their PATH make do with today's.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from testbed.bed import Bed
from testbed.host import Host
from testbed.network import ROOT, Network, Node

PINS = ("re6stnet==0.642", "pyOpenSSL<24")


OPENVPN_WRAPPER = """
PATH=${PATH#*:}
for word; do
    shift
    [ "$word" = --ncp-disable ] && set -- "$@" --data-ciphers none --data-ciphers-fallback none && continue
    set -- "$@" "$word"
done
exec openvpn "$@"
"""
"""2.6 does not start with --ncp-disable, and wants --data-ciphers to go without encryption (wire.md 8.2)."""


class InstallError(Exception):
    """The deployed software cannot be installed."""


def install() -> Path:
    """The folder of the deployed software's programs, installed if need be. Raises InstallError."""
    venv = Path(os.environ.get("RE6ST_INTEROP_VENV") or ROOT / ".venv-interop").absolute()
    venv.parent.mkdir(parents=True, exist_ok=True)
    complete = venv / "complete"
    lock = os.open(venv.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists() or complete.read_text() != "\n".join(PINS):
            _make(venv)
            complete.write_text("\n".join(PINS))
    finally:
        os.close(lock)
    return venv / "bin"


def theirs(reference: Path, program: str) -> list[str]:
    """Command of a deployed program; -I, since our package has the same name."""
    return [str(reference / "python"), "-I", str(reference / program)]


class ReferenceNode(Node):
    """The deployed re6stnet on a host."""

    babel_socket = "babeld.text"

    def __init__(self, host: Host, options: Sequence[str], reference: Path) -> None:
        super().__init__(host, options)
        self._program = theirs(reference, "re6stnet")

    def command(self, *options: str) -> list[str]:
        host = self.host
        path = f"PATH={_wrappers(host)}{os.pathsep}{os.environ['PATH']}"
        places = ["--log", host.log, "--run", host.run_directory, "--state", host.state]
        base = [*self.wrapper, "env", "-u", "PYTHONPATH", path, *self._program, "@re6stnet.conf", *map(str, places)]
        return [*base, "-v", "3", *self.options, *options]


class MixedNetwork(Network):
    """A network with nodes of both kinds: those at the numbers `old`, from 0, are of the deployed software."""

    def __init__(
        self,
        bed: Bed,
        reference: Path,
        nodes: int,
        old: Collection[int],
        *,
        old_registry: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(bed, nodes, **options)
        self.failures = 0
        """How often a node of the deployed software ended by itself."""
        for number in old:
            node = self.nodes[number]
            self.nodes[number] = ReferenceNode(node.host, node.options, reference)
        if old_registry:
            self.registry_program = theirs(reference, "re6st-registry")

    def check_alive(self) -> None:
        """As systemd does, start the deployed software again when it failed: 0.642 does so now and then."""
        for node in self.old:
            if node.process is not None and node.process.poll():
                print(f"{node} ended with status {node.process.returncode}, and is started again")
                self.failures += 1
                node.start()
        super().check_alive()

    @property
    def old(self) -> list[Node]:
        return [node for node in self.nodes if isinstance(node, ReferenceNode)]

    @property
    def new(self) -> list[Node]:
        return [node for node in self.nodes if not isinstance(node, ReferenceNode)]


def _wrappers(host: Host) -> Path:
    """The folder of the wrappers around babeld and OpenVPN, as a node on this host wants them."""
    folder = host.directory / "bin"
    folder.mkdir(exist_ok=True)
    babeld = f'PYTHONPATH={ROOT} exec {sys.executable} -m testbed.patched_babeld "$@"'
    for name, script in (("babeld", babeld), ("openvpn", OPENVPN_WRAPPER)):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return folder


def _make(venv: Path) -> None:
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS]
    for arguments in ([sys.executable, "-m", "venv", "--clear", str(venv)], pip):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            raise InstallError(f"the deployed software cannot be installed: {reason}")
