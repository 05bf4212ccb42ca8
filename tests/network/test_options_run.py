"""Options of the node that change what it does to its machine, with the real node (wire.md 11.2)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from testbed import Bed, Network, Node, wait_until

FORMS = 90


def words(node: Node, name: str) -> list[list[str]]:
    """The command lines of this program on the node's host."""
    return [argv for argv in node.host.processes().values() if argv and Path(argv[0]).name == name]


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def test_many_options_at_once(bed: Bed) -> None:
    network = Network(bed, 2)
    first, node = network.nodes
    host = node.host
    host.namespace.ip("link add name inside7 type bridge")
    said = host.directory / "said"
    node.options += [
        *("--main-interface", "inside7", "-v", "3", "--ovpnlog", "-O--mute", "-O5", "-B-d0"),
        *("--up", f"env | grep ^re6stnet_ | sort > {said}"),
        *("--up", f"ip -6 address show dev $re6stnet_iface | grep -c $re6stnet_ip >> {said}"),
        *("--daemon", f"echo daemon >> {said}; exec sleep 1234"),
    ]
    first.options += ["-v", "0"]
    network.start()
    network.wait_connected(FORMS)
    assert str(node.address) in host.ip("-6", "address", "show", "dev", "inside7")
    assert str(node.address) not in host.ip("-6", "address", "show", "dev", "lo")
    assert read(said).splitlines() == [
        "re6stnet_iface=inside7",
        f"re6stnet_ip={node.address}",
        f"re6stnet_network={network.network}",
        f"re6stnet_subnet={node.subnet}",
        "1",
        "daemon",
    ]
    assert ["sleep", "1234"] in host.processes().values()
    assert all(argv[argv.index("--mute") + 1] == "5" for argv in words(node, "openvpn"))
    assert all("-d0" in argv for argv in words(node, "babeld"))
    logs = {path.name for path in host.log.iterdir()}
    assert {"re6stnet.log", "babeld.log", "re6stnet-tcp.log"} <= logs
    assert "Initialization Sequence Completed" in read(host.log / "re6stnet-tcp.log")
    log = read(host.log / "re6stnet.log")
    assert " DEBUG " in log
    assert " INFO " in log
    assert not {"re6stnet.log", "babeld.log"} & {path.name for path in first.host.log.iterdir()}, "-v 0: no log"

    checked = node.run("--check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert re.search(r"^main-interface +inside7 +command line$", checked.stdout, re.M), checked.stdout
    assert re.search(r"^max-clients +\d+ +the network's parameters$", checked.stdout, re.M), checked.stdout
    network.check_alive()
    assert ["sleep", "1234"] in host.processes().values(), "nothing was disturbed"

    assert node.stop() == 0
    assert ["sleep", "1234"] not in host.processes().values()
    assert [trace for trace in node.traces() if trace != "interface inside7"] == []


@pytest.mark.parametrize(("level", "style"), [(1, "text"), (2, "json")])
def test_the_log_says_as_much_as_is_asked_for(bed: Bed, level: int, style: str) -> None:
    network = Network(bed, 1)
    node = network.nodes[0]
    network.create()
    network.enrol()
    node.start("-v", str(level), "--log-format", style, "--daemon", "exit 3")
    log = node.host.log / "re6stnet.log"
    wait_until(lambda: "--daemon 'exit ...' ended: exit status 3" in read(log), 30, "the warning", bed.tails)
    assert node.stop() == 0
    lines = read(log).splitlines()
    if style == "json":
        levels = {json.loads(line)["level"] for line in lines}
    else:
        levels = {line.split()[1].lower() for line in lines}
    assert "warning" in levels
    assert ("info" in levels) == (level == 2)
    assert "debug" not in levels


def test_an_up_command_that_fails_ends_the_node(bed: Bed) -> None:
    network = Network(bed, 1)
    node = network.nodes[0]
    network.create()
    network.enrol()
    done = node.run("--up", "exit 4", "--daemon", "touch started")
    assert done.returncode == 1
    assert done.stderr == "re6stnet: --up 'exit ...': exit status 4\n"
    assert not (node.host.etc / "started").exists()
    assert not [trace for trace in node.traces() if not trace.startswith("process")]


def test_an_expression_is_told_before_anything_is_touched(bed: Bed) -> None:
    network = Network(bed, 1)
    node = network.nodes[0]
    node.host.etc.joinpath("re6stnet.conf").write_text("registry http://192.0.2.1/\nca x\ncert x\nkey x\n")
    assert node.run("--test", "main_interface == 'lo'").returncode == 1
    assert node.run("--test", "gateway").returncode == 0
    assert not (node.host.log / "re6stnet.log").exists()
    assert node.traces() == []


# --- multicast: pim-dm has no Debian package, and its last release does not build with Python 3.11 ---

PLAYED = """#!/bin/sh
echo "$*" >> {said}
case "$1" in -config) cp "$2" {config}; exec sleep 4321;; esac
"""


def test_multicast_is_told_of_every_interface(bed: Bed) -> None:
    network = Network(bed, 2)
    node = network.nodes[1]
    host = node.host
    said, config, programs = host.directory / "said", host.directory / "config", host.directory / "bin"
    programs.mkdir()
    (programs / "pim-dm").write_text(PLAYED.format(said=said, config=config))
    (programs / "pim-dm").chmod(0o755)
    node.wrapper = ["env", f"PATH={programs}:{os.environ['PATH']}"]
    node.options += ["--multicast", "-i", "eth0"]
    network.start()
    network.wait_connected(FORMS)

    def told(name: str) -> bool:
        return f"'{name}'" in read(config) or f"-6 -aisr {name}\n-aimld {name}\n" in read(said)

    wait_until(lambda: told("eth0") and told("re6stnet-tcp"), 30, "LAN and server", bed.tails)
    assert read(said).startswith(f"-config {host.run_directory}/re6stnet-multicast.yaml\n")
    assert not told("lo")
    started = [pid for pid, argv in host.processes().items() if argv == ["sleep", "4321"]]
    assert len(started) == 1
    os.kill(started[0], 9)
    wait_until(lambda: read(said).count("-config") == 2, 30, "it is started again", bed.tails)
    assert node.stop() == 0
    assert node.traces() == []


def test_multicast_without_the_program_is_one_line(bed: Bed) -> None:
    network = Network(bed, 1)
    network.create()
    network.enrol()
    done = network.nodes[0].run("--multicast")
    assert done.returncode == 78
    assert done.stderr == (
        "re6stnet: pim-dm: program not found. Install it (pip install pim-dm), or leave out --multicast.\n"
    )
    assert network.nodes[0].traces()[0].startswith("process"), "only the registry is there"


def test_what_is_not_there_is_one_line(bed: Bed) -> None:
    network = Network(bed, 1)
    node = network.nodes[0]
    network.create()
    network.enrol()
    for option, value in (("--run", "/proc/x"), ("--log", "/proc/x"), ("--state", "/proc/x")):
        done = node.run(option, value)
        assert done.returncode > 0
        assert done.stderr.startswith("re6stnet: ")
        assert done.stderr.count("\n") == 1, done.stderr
        assert value in done.stderr
        assert not [trace for trace in node.traces() if not trace.startswith("process")]
