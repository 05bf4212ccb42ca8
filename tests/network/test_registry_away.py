"""The registry is away, moved, or not what it should be: nodes live on with what they have, and say so now and then."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from testbed import Bed, Host, Network, Node, wait_until

FORMS = 90
STRANGER = """
import http.server, sys, time

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, flush=True)
        kind = sys.argv[1]
        if kind == "slow":
            time.sleep(600)
        self.send_response({"error": 500, "redirect": 302}.get(kind, 200))
        if kind == "redirect":
            self.send_header("Location", sys.argv[2])
        self.end_headers()
        self.wfile.write(b"\\0garbage" * 1000)

http.server.ThreadingHTTPServer(("", 80), Answer).serve_forever()
"""


def log(node: Node) -> str:
    file = node.host.log / "re6stnet.log"
    return file.read_text() if file.exists() else ""


@contextlib.contextmanager
def answering(host: Host, *how: str) -> Iterator[None]:
    """Something else answers where the registry was."""
    process = host.start([sys.executable, "-c", STRANGER, *how], log="stranger.out")
    try:
        yield
    finally:
        for pid, words in host.processes().items():
            if STRANGER in words:
                host.run(["kill", str(pid)])
        process.wait(60)


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 3, registry_options=["--hello", "2"])
    network.start()
    network.wait_connected(FORMS)
    return network


@pytest.mark.parametrize("how", ["error", "garbage", "redirect", "slow"])
def test_whatever_answers_there_nodes_live_on_and_start_again(network: Network, bed: Bed, how: str) -> None:
    node = network.nodes[2]
    assert network.stop_registry() == 0
    place = "http://10.0.0.2/"
    with answering(network.registry_host, how, place), answering(network.nodes[1].host, "garbage"):
        assert node.stop() == 0
        node.start()  # from what it remembers
        network.wait_connected(FORMS)
        # And one that remembers nothing waits, and does not ask all the time.
        assert node.stop() == 0
        network.forget(node)
        before = len(log(node))
        node.start()
        if how != "slow":
            wait_until(lambda: "no network parameters yet" in log(node)[before:], 60, "it says so", bed.tails)
        wait_until(lambda: bool(node.host.processes()), 60, "it lives")
        assert log(node)[before:].count("\n") < 20
        assert "Traceback" not in log(node)
        network.wait_connected(FORMS, network.nodes[:2])
        asked = (network.nodes[1].host.log / "stranger.out").read_text()
        assert asked == "", "nobody followed a redirection"
    network.start_registry()
    network.wait_connected(FORMS * 2)


def test_a_registry_that_moved_is_found_at_its_new_url(network: Network) -> None:
    assert network.stop_registry() == 0
    node = network.nodes[1]
    assert node.stop() == 0
    network.forget(node)
    network.start_registry()
    node.start("--registry", f"http://[{network.registry_host.ipv6}]/")
    network.wait_connected(FORMS)


def test_a_name_that_moves_is_looked_up_again(bed: Bed) -> None:
    network = Network(bed, 3, registry_options=["--hello", "2"])
    hosts = bed.directory / "hosts"
    hosts.write_text(f"{network.registry_host.address} registry.example.org\n")
    for node in network.nodes:
        # The file itself is mounted: what is written to it later is seen.
        node.wrapper = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
        node.options += ["--registry", "http://registry.example.org/"]
    network.start()
    network.wait_connected(FORMS)
    host = network.registry_host
    host.namespace.ip("address add 10.0.9.9/16 dev eth0")
    rules = "add table ip moved; add chain ip moved in { type filter hook input priority 0; };"
    host.run(["nft", f"{rules} add rule ip moved in ip daddr {host.address} tcp dport 80 reject"])
    hosts.write_text("10.0.9.9 registry.example.org\n")
    assert network.stop_registry() == 0
    network.registry_options += ["--tunnel-refresh", "200"]
    network.start_registry()
    for node in network.nodes:
        wait_until(lambda: "parameters 2 are in force" in log(node), FORMS, f"{node} asks there", bed.tails)  # noqa: B023
    assert not any("Traceback" in log(node) for node in network.nodes)


OLDER = "import sys, re6st; re6st.PROTOCOL = 9; from re6st.cli.node.main import main; sys.exit(main())"


def test_a_network_that_has_become_too_new_is_left_with_one_line(
    network: Network, bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = network.nodes[1]
    assert node.stop() == 0
    command = node.command
    monkeypatch.setattr(node, "command", lambda *options: [sys.executable, "-c", OLDER, *command(*options)[3:]])
    node.start()
    network.wait_connected(FORMS)
    assert network.stop_registry() == 0
    network.registry_options += ["--min-protocol", "10"]
    network.start_registry()
    wait_until(lambda: "this network wants protocol 10" in log(node), 60, "a running node says so", bed.tails)
    node.stop()
    done = node.run()
    assert done.returncode == 76
    assert done.stderr.count("\n") == 1, done.stderr
    assert "protocol 10" in done.stderr
    assert not [trace for trace in node.traces() if not trace.startswith("process")]
