"""re6st-status and the metrics beside running nodes: what they say is what the network really is."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
from functools import partial
from typing import Any

from testbed import Bed, Network, Node, wait_until
from testbed.network import environment, program

FORMS = 90


def status(node: Node, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run re6st-status on the node's host, for this node."""
    argv = [*program("status"), "--control", str(node.host.run_directory / "control.sock"), *words]
    return node.host.run(argv, check=False, env=environment(), timeout=timeout)


def answer(node: Node, *words: str) -> Any:
    done = status(node, "--json", *words)
    return json.loads(done.stdout)


def metrics(node: Node, port: int) -> dict[str, float]:
    """The samples of a page on the node's host, by name and labels as they stand there."""

    def fetch() -> bytes:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.connect()
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            assert response.status == 200, response.status
            return response.read()

    lines = node.host.namespace.call(fetch).decode().splitlines()
    return {name: float(value) for name, _, value in (each.rpartition(" ") for each in lines if each[:1] != "#")}


def is_well(node: Node) -> bool:
    return status(node).returncode == 0


def test_an_operator_sees_a_network(bed: Bed) -> None:
    network = Network(bed, 3, registry_options=["--metrics", ":9327"], node_options=["--metrics", ":9326"])
    # A chain, in which the third node reaches the second only through the first.
    first, second, third = network.nodes
    second.options += ["--max-clients", "0"]
    third.options += ["--max-clients", "0"]
    network.create()
    network.enrol()
    assert status(second).returncode == 3, "nothing runs yet"
    assert "is not running" in status(second, "tunnels").stderr
    waiting = second.host.start(
        [*program("status"), "--control", str(second.host.run_directory / "control.sock"), "wait", "--for", "registry"],
        "wait.out.log",
        env=environment(),
    )
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    assert waiting.wait(30) == 0
    for node in network.nodes:
        wait_until(partial(is_well, node), 30, f"{node} is well", bed.tails)

    # Who it is, and its one tunnel.
    shown = status(third).stdout
    assert "health: ok" in shown
    assert str(third.address) in shown
    assert f"its node {first.prefix.cn} is in reach" in shown
    whole = answer(third)
    assert whole["schema"] == 1
    assert whole["cn"] == third.prefix.cn
    assert [(t["peer"], t["direction"], t["state"]) for t in whole["tunnels"]] == [(first.prefix.cn, "out", "up")]
    assert status(third, "check").stdout.startswith("RE6ST OK - ")

    # The other one is behind the first: so say the route, the hops, and the echoes.
    target = second.prefix.cn
    assert f"is reached via {first.prefix.cn}" in status(third, "why", target).stdout
    found = answer(third, "why", str(second.subnet))
    assert found["peer"] == target
    assert found["since"]["via"]["peer"] == first.prefix.cn
    traced = answer(third, "trace", str(second.address))
    assert traced["reached"]
    assert [hop["peer"] for hop in traced["hops"]] == [first.prefix.cn, target]
    pinged = status(third, "ping", target, "--count", "1")
    assert "1 sent, 1 answered" in pinged.stdout
    assert pinged.returncode == 0
    assert status(third, "ping", "999/16", "-c", "1", "-t", "1").returncode == 1

    # Whom it knows, and the mesh as it sees it: a chain.
    (known,) = (each for each in answer(third, "peers")["peers"] if each["peer"] == first.prefix.cn)
    assert {"host": first.host.address, "port": 1194, "protocol": "tcp", "country": ""} in known["addresses"]
    assert (known["tunnel"], known["last"]["kind"]) == ("out", "tunnel-up")
    seen = answer(third, "graph")
    assert {node["cn"]: node["state"] for node in seen["nodes"]} == {
        third.prefix.cn: "own",
        first.prefix.cn: "neighbour",
        target: "behind",
    }
    assert [(edge["from"], edge["to"]) for edge in seen["edges"]] == [
        (third.prefix.cn, first.prefix.cn),
        (first.prefix.cn, target),
    ]
    assert f'"{first.prefix.cn}" -> "{target}"' in status(third, "graph", "--dot").stdout
    certificate = answer(third, "cert")
    assert (certificate["cn"], certificate["subnet"]) == (third.prefix.cn, str(third.subnet))

    # What its machine lacks: nothing; and a report of it all, without names.
    checked = answer(third, "netcheck")
    assert [finding for finding in checked["findings"] if finding["level"] == "fail"] == []
    words = [finding["text"] for finding in checked["findings"]]
    assert "CA matches" in words
    assert f"path MTU to {target} 1500" in words
    assert any(text.startswith(f"udp/326 passes inside, {target} has version ") for text in words)
    assert "2 peers connected, " in status(first, "netcheck").stdout
    # A way behind the first node that carries less. (The MTU of a tunnel's interface is the node's: it puts it back.)
    (to_target,) = json.loads(first.host.ip("-json", "-6", "route", "get", str(second.address)))
    by = ("via", to_target["gateway"], "dev", to_target["dev"])
    first.host.ip("-6", "route", "add", f"{second.address}/128", *by, "mtu", "lock", "1400")
    assert f"path MTU to {target} 1400" in status(third, "netcheck").stdout, "a Packet Too Big came back"
    reports = [status(third, "bugreport", *words, "-o", "-").stdout for words in ((), ("--anonymise",))]
    for name in (str(third.address), str(first.subnet), first.host.address, f'"{target}"'):
        assert [name in report for report in reports] == [True, False]
    assert "connected to the network" in reports[1], "the log is in it"

    # The same in figures.
    figures = metrics(first, 9326)
    assert figures["re6st_connected"] == 1
    assert figures["re6st_nodes_reachable"] == 2
    assert figures['re6st_tunnels{direction="in",state="up"}'] == 2
    assert figures['re6st_child_up{program="babeld"}'] == figures['re6st_child_up{program="openvpn-tcp"}'] == 1
    assert figures['re6st_routes{state="installed"}'] >= 2
    assert figures[f're6st_neighbour_cost{{peer="{target}"}}'] < 65535
    assert figures["process_resident_memory_bytes"] > 1 << 20
    counted = metrics(first, 9327)
    assert counted['re6st_registry_certificates{state="valid"}'] == 3
    assert counted['re6st_registry_certificates_issued_total{kind="enrolment"}'] == 3
    assert counted["re6st_registry_nodes_online"] == 3
    assert counted['re6st_registry_http_requests_total{code="200",method="requestCertificate"}'] == 3
    assert 0.9 < counted["re6st_registry_prefixes_free_ratio"] < 1

    # One that ends: the others say so, their logs too.
    following = first.host.start(
        [*program("status"), "--control", str(first.host.run_directory / "control.sock"), "log", "-f", "3"],
        "follow.out.log",
        env=environment(),
    )
    log = first.host.log / "follow.out.log"
    wait_until(
        lambda: status(first, "log", "2") and "the log level is 2 now" in log.read_text(), 30, "it follows", bed.tails
    )
    second.stop()
    wait_until(lambda: f"{target} disconnected" in log.read_text(), 30, "it is followed", bed.tails)
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 130
    assert "Traceback" not in log.read_text()
    wait_until(lambda: status(third, "why", target).returncode == 1, 30, "it is out of reach", bed.tails)
    assert status(third, "trace", target, "-t", "1").returncode == 1
    assert f"lost 1 node: {target}" in status(third, "events").stdout

    # Cut off, it is not well, and says why; and it is found to be down when it ended.
    first.stop()
    network.stop_registry()
    wait_until(lambda: "no other node can be reached" in status(third).stdout, 60, "it says why", bed.tails)
    assert status(third).returncode == 1
    assert status(third, "check").returncode == 2
    assert status(third, "wait", "--timeout", "1").returncode == 5
    third.stop()
    assert status(third).returncode == 3
    assert json.loads(status(third, "--json").stdout)["running"] is False
    checked = answer(third, "netcheck")
    assert checked["verdict"] == "fail"
    assert "is not running" in checked["findings"][0]["text"]
    assert "babeld" in status(third, "bugreport", "-o", "-").stdout
