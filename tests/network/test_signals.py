"""Signals and systemd: how a node ends in every phase of its life, and what it says meanwhile (wire.md 10.9)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from testbed import Bed, Network, Node, wait_until

FORMS = 90


@pytest.fixture
def network(bed: Bed) -> Network:
    """A registry with its node, which runs, and an enrolled node, which does not."""
    network = Network(bed, 2)
    network.create()
    network.enrol()
    network.nodes[0].start()
    return network


def ready(node: Node) -> bool:
    return bool(node.babel().routes)


FORWARDING = "/proc/sys/net/ipv6/conf/all/forwarding"


def sysctl(node: Node, path: str) -> str:
    return node.host.run(["cat", path]).stdout.strip()


def log_text(node: Node) -> str:
    return (node.host.log / "re6stnet.log").read_text()


def nothing_is_left(node: Node) -> None:
    assert node.traces() == []
    assert sysctl(node, FORWARDING) == "0", "it was so before"
    for file in node.host.log.iterdir():
        assert "Traceback" not in file.read_text(errors="replace"), file


PHASES: dict[str, Callable[[Node], object]] = {
    "its run directory": lambda node: node.host.run_directory.exists(),
    "the program babeld": lambda node: node.pids("babeld"),
    "the program OpenVPN": lambda node: node.pids("openvpn"),
    "a client tunnel": lambda node: "re6stnet1" in node.host.interfaces(),
}


def test_each_signal_has_its_status_and_leaves_nothing(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGUSR2, 255)):
        node.start()
        wait_until(partial(ready, node), FORMS, "routes", bed.tails)
        assert node.end(number) == status
        nothing_is_left(node)


def test_sigterm_in_every_phase_leaves_nothing(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    for what, reached in PHASES.items():
        node.start()
        wait_until(partial(reached, node), 30, what, bed.tails)
        assert node.stop() == 0, what
        nothing_is_left(node)


def test_a_second_signal_while_it_leaves_changes_nothing(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    node.start()
    wait_until(partial(ready, node), FORMS, "routes", bed.tails)
    assert node.process
    node.process.send_signal(signal.SIGTERM)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        wait_until(lambda: "leaving" in (node.host.log / "re6stnet.log").read_text(), 60, "it leaves", bed.tails)
        node.process.send_signal(number)
    assert node.stop() == 0
    nothing_is_left(node)


def test_what_babeld_sets_in_the_kernel_is_put_back_though_babeld_or_the_node_was_killed(
    network: Network, bed: Bed
) -> None:
    """The babeld of the next one takes what it finds for what the user set."""
    node = network.nodes[1]
    before = {"net/ipv4/conf/all/forwarding": 0, "net/ipv4/conf/all/rp_filter": 2, "net/ipv6/conf/all/forwarding": 0}
    node.host.namespace.sysctl(before)

    def starts_babeld_anew(number: signal.Signals) -> None:
        (pid,) = node.pids("babeld")
        os.kill(pid, number)
        wait_until(lambda: pid not in node.pids("babeld") and ready(node), FORMS, "routes again", bed.tails)

    for what in ("babeld", "node"):
        node.start()
        wait_until(partial(ready, node), FORMS, "routes", bed.tails)
        assert sysctl(node, FORWARDING) == "1"
        if what == "babeld":
            starts_babeld_anew(signal.SIGKILL)
        else:
            node.end(signal.SIGKILL)
            starts = log_text(node).count("taking over babeld")
            node.start()
            wait_until(
                lambda: log_text(node).count("taking over babeld") > starts,  # noqa: B023
                *(FORMS, "it goes on with the babeld that was left", bed.tails),
            )
            starts_babeld_anew(signal.SIGKILL)
        assert node.stop() == 0
        nothing_is_left(node)
        assert {name: int(sysctl(node, f"/proc/sys/{name}")) for name in before} == before, what


def test_sigterm_while_it_waits_for_the_registry(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    network.stop_registry()
    node.start()
    log = node.host.log / "re6stnet.log"
    wait_until(lambda: log.exists() and "no network parameters yet" in log.read_text(), 60, "it waits", bed.tails)
    assert node.stop() == 0
    nothing_is_left(node)


def test_logs_are_opened_again(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    node.options.append("--ovpnlog")
    node.start()
    wait_until(partial(ready, node), FORMS, "routes", bed.tails)
    logs = [node.host.log / f"{name}.log" for name in ("re6stnet", "babeld", "re6stnet-tcp", "re6stnet1")]
    for log in logs[:2]:
        log.rename(log.with_suffix(".log.1"))
    written = [log for log in logs[2:] if log.exists()]
    for log in written:  # OpenVPN has it open
        os.truncate(log, 0)
    assert node.process
    node.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: logs[0].exists() and logs[1].exists(), 60, "new logs", bed.tails)
    assert node.stop() == 0
    assert "leaving" in logs[0].read_text()
    assert "leaving" not in logs[0].with_suffix(".log.1").read_text()
    # OpenVPN says at its end that it was told to end.
    assert any("SIGTERM" in log.read_text() for log in written)


# --- systemd ---


class Systemd:
    """Plays systemd's end of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def hears(self, start: str) -> bool:
        """Whether a line that starts so has come."""
        try:
            while True:
                self.heard += self._socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return any(line.startswith(start) for line in self.heard)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(bed: Bed) -> Iterator[Systemd]:
    played = Systemd(bed.directory / "notify")
    yield played
    played.close()


def environment(systemd: Systemd) -> list[str]:
    return ["env", f"NOTIFY_SOCKET={systemd.path}", "WATCHDOG_USEC=900000"]


def test_systemd_hears_when_it_is_in_service_and_that_it_lives(network: Network, bed: Bed, systemd: Systemd) -> None:
    node = network.nodes[1]
    node.wrapper = environment(systemd)
    network.stop_registry()
    node.start()
    waiting = "STATUS=waiting for the network parameters from the registry"
    wait_until(lambda: systemd.hears(waiting), 60, "it waits for the registry", bed.tails)
    wait_until(lambda: systemd.hears("READY=1"), 60, "nobody waits with it for ever", bed.tails)
    assert not node.pids("babeld")
    wait_until(lambda: systemd.hears("WATCHDOG=1"), 60, "it lives", bed.tails)
    network.start_registry()
    wait_until(lambda: systemd.hears("STATUS=connected"), 120, "its state in words", bed.tails)
    assert str(node.address) in node.host.ip("-6", "address", "show")
    assert node.pids("babeld")

    # A daemon that hangs is silent, which is what systemd restarts it for.
    assert node.process
    node.process.send_signal(signal.SIGSTOP)
    systemd.hears("")
    systemd.heard.clear()
    with pytest.raises(AssertionError):
        wait_until(lambda: systemd.hears("WATCHDOG=1"), 2, "nothing", lambda: "")
    node.process.send_signal(signal.SIGCONT)
    wait_until(lambda: systemd.hears("WATCHDOG=1"), 60, "it lives again", bed.tails)
    assert node.stop() == 0
    assert systemd.hears("STOPPING=1")
    # OpenVPN speaks to systemd too; not in our name.
    assert not [line for line in systemd.heard if "Initialization" in line or "connection" in line.lower()]


def test_the_registry_tells_systemd(bed: Bed, systemd: Systemd) -> None:
    network = Network(bed, 1)
    network.registry_program = [*environment(systemd), *network.registry_program]
    network.create()
    wait_until(lambda: systemd.hears("READY=1") and systemd.hears("WATCHDOG=1"), 60, "ready and alive", bed.tails)
    assert network.registry_process
    network.registry_process.send_signal(signal.SIGHUP)
    wait_until(lambda: systemd.hears("RELOADING=1"), 60, "reloading", bed.tails)
    assert network.stop_registry() == 0
    assert systemd.hears("STOPPING=1")


def test_the_units_are_understood(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.fail("systemd-analyze is not installed: ./run setup installs it")
    root = Path(__file__).parents[2]
    for unit in (root / "daemon").glob("*.service"):
        # The programs need not be installed here.
        text = unit.read_text().replace("/usr/bin/re6st", "/bin/true re6st").replace("-/sbin/modprobe", "-/bin/true")
        text = text.replace("/usr/lib/re6stnet/prepare-states", "/bin/true")
        (tmp_path / unit.name).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), unit.name
        if "\nType=oneshot\n" not in text:
            assert "\nType=notify\n" in text
            assert "\nWatchdogSec=30\n" in text
