"""What a running node tells on its control socket, against what its network really is (docs/control.md)."""

from __future__ import annotations

import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testbed import Bed, Network, Node, wait_until
from testbed.control import Refused, ask, control

FORMS = 90


def place(node: Node) -> Path:
    return node.host.run_directory / "control.sock"


def healthy(node: Node) -> bool:
    try:
        return bool(ask(place(node), "status")["health"]["verdict"] == "ok")
    except OSError:
        return False


def knows_all(node: Node, others: int) -> bool:
    return bool(ask(place(node), "status")["mesh"]["peers"] == others)


def tunnels(node: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(place(node), "tunnels")["tunnels"]
    return found


def test_a_node_tells_its_state(bed: Bed) -> None:
    network = Network(bed, 3)
    network.create()
    network.enrol()
    first, second, third = network.nodes
    second.options += ["--console", str(second.host.directory / "console")]
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    for node in network.nodes:
        wait_until(partial(healthy, node), 60, f"{node} says that it is well", bed.tails)
        # A ping is answered as soon as babeld has made the routes; the node collects changes of its table first.
        wait_until(partial(knows_all, node, 2), 10, f"{node} knows of the others", bed.tails)

    status = ask(second.host.directory / "console", "status")
    assert status["cn"] == second.prefix.cn
    assert status["address"] == str(second.address)
    assert {"url": network.url.rstrip("/"), "cn": first.prefix.cn, "connected": True}.items() <= status[
        "registry"
    ].items()
    assert status["registry"]["answered"] <= time.time()
    assert status["mesh"]["peers"] == 2
    assert {"host": second.host.address, "port": 1194, "protocol": "tcp", "origin": "given"} in status["advertised"]
    assert all(server["listening"] for server in status["servers"])

    # Each tunnel is there at both of its ends, and the bytes of the pings are counted.
    wait_until(
        lambda: all(t["received_bytes"] and t["sent_bytes"] and t["cost"] for n in network.nodes for t in tunnels(n)),
        30,
        "bytes and costs of every tunnel are known",
        lambda: str([tunnels(node) for node in network.nodes]),
    )
    ends = {(n.prefix.cn, t["peer"], t["direction"]) for n in network.nodes for t in tunnels(n)}
    assert len(ends) >= 4
    assert {(b, a, "in" if way == "out" else "out") for a, b, way in ends} == ends

    routes = ask(place(second), "routes")
    assert {first.prefix.cn, third.prefix.cn} <= {route["peer"] for route in routes["routes"]}
    assert sum(hop["routes"] for hop in routes["by_next_hop"]) == routes["count"] == len(routes["routes"])
    ways = ask(place(second), "why", peer=first.prefix.cn)["routes"]
    assert ways[0]["in_use"]
    assert {each["peer"] for each in ask(place(second), "neighbours")["neighbours"]} & {
        first.prefix.cn,
        third.prefix.cn,
    }

    # A broken babeld is told at once to who watches, and shows in the verdict.
    with control(place(second)) as watching:
        assert watching.ask("watch") == {"watching": True}
        second.signal("babeld")
        kinds = []
        while "babel-running" not in kinds:
            kinds.append(watching.next()["kind"])
    assert "babel-ended" in kinds
    wait_until(lambda: healthy(second), 60, "well again", bed.tails)
    events = ask(place(second), "events")["events"]
    healed = next(e for e in reversed(events) if e["kind"] == "babel-running")
    assert 0 < healed["seconds"] < 60

    # Its options, of which none is a secret; its certificate; and whom it knows.
    told = ask(place(second), "options")
    assert told["options"]["ip"] == [second.host.address]
    assert (told["parameters"]["registry_prefix"], told["parameters"]["crl"]) == (first.prefix.cn, 0)
    assert ask(place(second), "certificate")["address"] == str(second.address)
    assert {first.prefix.cn, third.prefix.cn} <= {each["peer"] for each in ask(place(second), "peers")["peers"]}

    # The level of the log changes while it runs, and who follows has a level of its own.
    with control(place(second)) as following:
        assert following.ask("follow", level=3) == {"following": True, "level": 3}
        ask(place(second), "log", level=1)
        assert following.next()["text"] == "the log level is 1 now, it was 2"
        ask(place(second), "log", level=2)
    log = second.host.log / "re6stnet.log"
    assert ask(place(second), "log", level=4)["was"] == 2
    assert "the log level is 4 now" in log.read_text()

    assert second.stop() == 0
    assert not (second.host.directory / "console").exists()
    assert not [trace for trace in second.traces() if not trace.startswith("process")]


def test_what_strangers_send_does_no_harm(bed: Bed) -> None:
    network = Network(bed, 2)
    network.start()
    network.wait_connected(FORMS)
    path = place(network.nodes[0])
    assert path.stat().st_mode & 0o007 == 0
    assert path.parent.stat().st_mode & 0o007 == 0
    for line in (b"\0\xff\n", b"[]\n", b"{}\n", b'{"protocol": 9, "operation": "status"}\n', b"[" * 4000 + b"\n"):
        with socket.socket(socket.AF_UNIX) as own:
            own.settimeout(10)
            own.connect(str(path))
            own.sendall(line)
            assert b'"error"' in own.recv(4096)
    with socket.socket(socket.AF_UNIX) as own:
        own.settimeout(10)
        own.connect(str(path))
        own.sendall(b"x" * 10_000)
        assert b"4096" in own.recv(4096)
    for operation, arguments in (
        ("eval", {}),
        ("why", {"peer": "x"}),
        ("routes", {"limit": 10**9}),
        ("log", {}),
        ("follow", {"level": 5}),
    ):
        with pytest.raises(Refused):
            ask(path, operation, **arguments)
    # Connections that say nothing keep others out only up to a number, and only for a while.
    silent = [socket.socket(socket.AF_UNIX) for _ in range(16)]
    for own in silent:
        own.connect(str(path))
    with pytest.raises((Refused, OSError)):
        ask(path, "status")
    for own in silent:
        own.close()
    wait_until(lambda: healthy(network.nodes[0]), 60, "it answers again", bed.tails)


def test_only_root_changes_the_level(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(bed, 1)
    network.start()
    node = network.nodes[0]
    wait_until(place(node).exists, 60, "the socket is there", bed.tails)
    # As an administrator would let somebody in by hand; by default the group re6stnet is.
    place(node).parent.chmod(0o711)
    place(node).chmod(0o666)
    monkeypatch.chdir(place(node).parent)
    os.seteuid(65534)
    try:
        assert ask(Path("control.sock"), "status")["cn"] == node.prefix.cn
        for operation in ("log", "follow"):
            with pytest.raises(Refused, match="only root"):
                ask(Path("control.sock"), operation, level=4)
        assert ask(Path("control.sock"), "follow") == {"following": True, "level": 2}
    finally:
        os.seteuid(0)
    assert ask(place(node), "log", level=4) == {"level": 4, "was": 2}
