"""The test bed itself: what it promises to the tests that stand on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from testbed import Bed, Host, Network, packages, ping, ping_pairs, wait_until
from testbed.namespace import BedError
from testbed.network import run_command

ROOT = Path(__file__).parents[2]
NAMESPACES = Path("/run/netns")


def ipv6(host: Host) -> IPv6Address:
    assert host.ipv6 is not None
    return IPv6Address(host.ipv6)


def traces(name: str) -> list[Path]:
    """What is left of a bed."""
    return [*NAMESPACES.glob(f"{name}-*"), *Path("/run").glob(f"*{name}*")]


def test_hosts_on_the_switch_reach_each_other(bed: Bed) -> None:
    hosts = [bed.host(f"h{number}") for number in range(4)]
    pairs = [(a, ipv6(b)) for a in hosts for b in hosts if a is not b]
    answers = ping_pairs(pairs)
    assert len(answers) == 12
    assert None not in answers.values()


def test_a_packet_larger_than_the_mtu_is_not_answered(bed: Bed) -> None:
    a, b = bed.host("a"), bed.host("b")
    assert ping(a, ipv6(b), size=1500) is not None
    assert ping(a, ipv6(b), timeout=0.2, size=1501) is None


def test_a_cut_is_silent_and_can_be_undone(bed: Bed) -> None:
    a, b = bed.host("a"), bed.host("b")
    assert ping(a, ipv6(b)) is not None
    b.cut()
    assert ping(a, ipv6(b), timeout=0.3) is None
    assert "LOWER_UP" in b.ip("link", "show", "eth0")
    b.restore()
    assert ping(a, ipv6(b)) is not None


def connects(source: Host, address: str) -> bool:
    try:
        source.namespace.call(lambda: socket.create_connection((address, 80), 0.5)).close()
    except OSError:
        return False
    return True


def test_nat_lets_out_but_not_in(bed: Bed) -> None:
    outside = bed.host("outside")
    router = bed.router("nat")
    inside = [router.host("inside1"), router.host("inside2")]
    servers = [
        host.namespace.call(lambda host=host: socket.create_server((host.address, 80)))  # type: ignore[misc]
        for host in (outside, *inside)
    ]
    try:
        assert connects(inside[0], outside.address)
        with servers[0].accept()[0] as accepted:
            assert accepted.getpeername()[0] == router.outside.address
        assert connects(inside[0], inside[1].address)
        outside.ip("route", "add", "192.168.0.0/16", "via", router.outside.address)
        assert not connects(outside, inside[0].address)
    finally:
        for server in servers:
            server.close()


def test_two_beds_beside_each_other(bed: Bed) -> None:
    a = bed.host("a")
    bed.host("b")
    with Bed() as other:
        c = other.host("a")
        assert ping(c, IPv6Address("fd00::2"), timeout=0.3) is None
        name = other.name
    assert traces(name) == []
    assert ping(a, IPv6Address("fd00::2")) is not None


def test_nothing_appears_in_the_machine_s_own_namespace(bed: Bed) -> None:
    before = socket.if_nameindex()
    router = bed.router("nat")
    router.host("a")
    assert socket.if_nameindex() == before


def test_a_program_that_fails_tells_what_it_printed(bed: Bed) -> None:
    with pytest.raises(Exception, match="status 3\nout of cheese"):
        bed.host("a").run(["sh", "-c", "echo out of cheese >&2; exit 3"])


def test_a_command_of_ours_that_fails_tells_what_it_printed(bed: Bed) -> None:
    with pytest.raises(BedError, match="status 2\nre6st-conf: unrecognized arguments: --cheese"):
        run_command(bed.host("a"), ["conf", "--cheese"])


def test_commands_of_ours_run_each_on_its_host(bed: Bed) -> None:
    """They ask a registry that only the first one reaches."""
    network = Network(bed, 1)
    network.create()
    other = bed.host("other")
    words = ["conf", "--registry", "http://127.0.0.1/", "--fingerprint", network.fingerprint, "--ca-only"]
    run_command(network.registry_host, words)
    assert (network.registry_host.directory / "ca.crt").exists()
    with pytest.raises(BedError, match="cannot connect: Connection refused"):
        run_command(other, words)
    assert not (other.directory / "ca.crt").exists()


OWNER = """
import sys
from testbed import Bed
with Bed() as bed:
    a = bed.host("a")
    a.start(["sleep", "1000"])
    a.start(["setsid", "sh", "-c", "trap '' TERM INT HUP; sleep 1000"])
    print(bed.name, flush=True)
    sys.stdin.read()
"""


def start_owner() -> tuple[subprocess.Popen[str], str]:
    """A process that owns a bed and waits; the name of the bed."""
    owner = subprocess.Popen(
        ["env", "--default-signal=INT,HUP", sys.executable, "-c", OWNER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    name = owner.stdout.readline().strip()
    assert name
    assert traces(name)
    return owner, name


def sleepers(name: str) -> list[str]:
    done = subprocess.run(["ip", "netns", "pids", f"{name}-a"], capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_bed_leaves_nothing(number: signal.Signals) -> None:
    owner, name = start_owner()
    with owner:
        owner.send_signal(number)
        owner.communicate(timeout=20)
    assert owner.returncode != 0
    assert traces(name) == []


def test_the_next_bed_clears_what_a_killed_one_left() -> None:
    owner, name = start_owner()
    with owner:
        wait_until(lambda: len(sleepers(name)) >= 2, 60, "the programs of the bed run")
        with Bed():
            assert traces(name), "a bed whose owner lives is left alone"
        owner.kill()
    pids = sleepers(name)
    assert pids
    with Bed():
        # One that was made at the same time may have begun to clear it.
        wait_until(lambda: traces(name) == [], 60, "it is cleared")
    assert not any(os.path.exists(f"/proc/{pid}/ns/net") for pid in pids)


LOCKED = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_what_is_known_of_packages_is_copied_when_apt_is_not_at_work(tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "copy"
    dpkg = root / "var/lib/dpkg"
    (dpkg / "updates").mkdir(parents=True)
    (dpkg / "status").write_text("half a status\n")
    lock = dpkg / "lock-frontend"
    lock.write_text("")
    target.mkdir()
    argv = [sys.executable, "-c", LOCKED, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as apt:
        assert apt.stdout is not None
        assert apt.stdout.readline() == "locked\n"
        with pytest.raises(BedError, match="apt or dpkg of this machine has been at work"):
            packages.copy(target, root, 0)
        assert not (target / "var").exists()
        apt.communicate()
    (dpkg / "updates/0001").write_text("what an interrupted dpkg leaves")
    with pytest.raises(BedError, match="or interrupted"):
        packages.copy(target, root, 0)
    (dpkg / "updates/0001").unlink()
    (dpkg / "status").write_text("all of it\n")
    packages.copy(target, root, 0)
    assert (target / "var/lib/dpkg/status").read_text() == "all of it\n"
