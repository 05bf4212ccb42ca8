"""A re6st network on a bed: a registry, its node beside it, and more nodes; all of them the real programs."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Address, IPv6Network
from itertools import permutations
from pathlib import Path

from re6st import cert
from re6st.core import interfaces
from re6st.core.prefix import Prefix, address, subnet
from re6st.core.routing.babel_lines import INFINITY, LineError, Table, parse_reply
from re6st.core.tunnel_protocols import Role
from re6st.service.run_names import BABELD_SOCKET
from testbed.bed import Bed
from testbed.bytecode import bytecode
from testbed.forked import Forked
from testbed.host import Host
from testbed.namespace import BedError, must_succeed
from testbed.pings import ping_pairs
from testbed.wait import wait_until

ROOT = Path(__file__).resolve().parent.parent
NETWORK = IPv6Network("2001:db8:42::/48")
STARTS = 60.0
"""Seconds for a program to be there; much less than one usually, but the machine may have other things to do."""
ENDS = 20.0
"""Seconds for it to end: as long as systemd waits for ours."""
PAIRS_AT_ONCE = 200
"""Pings under way while it is waited for all pairs."""


def program(name: str) -> list[str]:
    """The command line of one of our programs: registry, conf or node."""
    return [sys.executable, "-m", f"re6st.cli.{name}.main"]


def environment() -> dict[str, str]:
    """The environment of our programs: this checkout's package, compiled, whatever else is installed."""
    return os.environ | bytecode(ROOT) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@cache
def forked() -> Forked:
    """What our programs that end by themselves are forked from."""
    made = Forked(environment())
    atexit.register(made.close)
    return made


def run_command(host: Host, words: Sequence[str], directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of our programs that end by themselves on a host: conf, or a command of registry (testbed/forked.py).

    Raises BedError with what it printed if it failed.
    """
    try:
        done = forked().run(host.namespace.path, words, directory or host.directory, environment(), STARTS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BedError(f"{' '.join(words)}: {error}") from None
    must_succeed(done)
    return done


class Node:
    """re6stnet on a host."""

    babel_socket = BABELD_SOCKET
    """Where its babeld speaks text, in the run directory."""

    def __init__(self, host: Host, options: Sequence[str] = ()) -> None:
        self.host = host
        self.options = list(options)
        self.wrapper: list[str] = []
        """What stands before its command line, to run it in some odd surroundings."""
        self.process: subprocess.Popen[bytes] | None = None
        self.network = NETWORK
        self.prefix = Prefix(0, 0)

    def __repr__(self) -> str:
        return f"<{self.name} {self.prefix.cn}>"

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def subnet(self) -> IPv6Network:
        return subnet(self.network, self.prefix)

    @property
    def address(self) -> IPv6Address:
        """Its address inside re6st."""
        return address(self.network, self.prefix)

    def enrol(self, registry: str, fingerprint: str, *options: str) -> None:
        """Get a certificate with re6st-conf; anonymously, if no options say otherwise. Raises BedError."""
        base = ["--registry", registry, "--fingerprint", fingerprint, "-d", str(self.host.etc)]
        run_command(self.host, ["conf", *base, *(options or ["--anonymous"])])
        own = cert.load_pem((self.host.etc / "cert.crt").read_bytes())
        self.prefix = cert.prefix_of_cert(own)
        self.network = cert.network_of_ca(cert.load_pem((self.host.etc / "ca.crt").read_bytes()))

    def command(self, *options: str) -> list[str]:
        """The command line that starts the node, with its own options and these."""
        host = self.host
        places = ["--log", host.log, "--run", host.run_directory, "--state", host.state]
        return [*self.wrapper, *program("node"), "@re6stnet.conf", *map(str, places), *self.options, *options]

    def run(self, *options: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run the node until it ends by itself. Raises BedError if it does not."""
        return self.host.run(self.command(*options), timeout=timeout, check=False, env=environment(), cwd=self.host.etc)

    def start(self, *options: str) -> None:
        self.process = self.host.start(self.command(*options), "re6stnet.out.log", env=environment(), cwd=self.host.etc)

    def stop(self, timeout: float = ENDS) -> int:
        """End it as systemd would (SIGTERM), and return its exit status."""
        return self.end(signal.SIGTERM, timeout)

    def end(self, number: signal.Signals, timeout: float = ENDS) -> int:
        """Send it a signal that ends it, and return its exit status."""
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(timeout)

    def kill(self) -> None:
        """End the daemon at once (SIGKILL); its children live on."""
        self.end(signal.SIGKILL)

    def pids(self, name: str) -> list[int]:
        """The processes on its host that run this program, `openvpn` or `babeld`."""
        return [pid for pid, words in self.host.processes().items() if words and Path(words[0]).name == name]

    def signal(self, name: str, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to every process of its host that runs this program; their process ids."""
        pids = self.pids(name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def rules(self) -> list[str]:
        """The kernel's rules that lead packets by other tables than the main one."""
        lines = self.host.ip("-6", "rule", "show").splitlines()
        return [line for line in lines if not line.startswith(("0:", "32766:"))]

    def traces(self) -> list[str]:
        """What is on the host that was not there before the node: empty after a clean end."""
        host = self.host
        found = [f"interface {name}" for name in host.interfaces() if name not in ("lo", *host.ports)]
        found += [f"process {pid}: {' '.join(words)}" for pid, words in host.processes().items()]
        found += [f"file {path}" for path in [host.run_directory] if path.exists()]
        lines = host.ip("-6", "address", "show") + host.ip("-6", "route", "show", "table", "all")
        net = str(self.network.network_address).rstrip(":")
        found += [line.strip() for line in lines.splitlines() if net in line]
        found += [f"rule {line}" for line in self.rules()]
        rules = host.run(["nft", "list", "ruleset"]).stdout
        return found + [f"nftables {line}" for line in rules.splitlines()]

    def babel(self) -> Table:
        """What its babeld knows; empty while it does not run."""
        table = Table()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as own:
            own.settimeout(2)
            own.connect(str(self.host.run_directory / self.babel_socket))
            with own.makefile("r", encoding="ascii", errors="replace") as lines:
                for command in (b"", b"dump\n"):
                    own.sendall(command)
                    for line in lines:
                        if parse_reply(line.strip()):
                            break
                        with contextlib.suppress(LineError):
                            table.feed(line)
        return table


@dataclass(frozen=True)
class Tunnel:
    """A tunnel in use: who opened it, and to whom."""

    client: Node
    server: Node


class Network:
    """A registry and nodes. `nodes[0]` is the one beside the registry; the last `nat` ones sit behind a NAT router."""

    def __init__(
        self,
        bed: Bed,
        nodes: int = 3,
        *,
        hosts: Sequence[Host] = (),
        network: IPv6Network = NETWORK,
        nat: int = 0,
        registry_options: Sequence[str] = (),
        node_options: Sequence[str] = (),
    ) -> None:
        """On these `hosts`, or on new ones, as many as there are to be `nodes`."""
        if hosts:
            nodes = len(hosts)
        if not 0 <= nat < nodes:
            raise BedError(f"{nat} of {nodes} nodes behind NAT: at least the registry's node stands before it")
        self.bed = bed
        self.registry_program = program("registry")
        self.registry_options = list(registry_options)
        self.registry_process: subprocess.Popen[bytes] | None = None
        self.network = network
        self.nodes: list[Node] = []
        for host in hosts or [bed.host(f"node{number}") for number in range(1, nodes - nat + 1)]:
            self.nodes.append(Node(host, ["--ip", host.address, *node_options]))
        if nat:
            router = bed.router("nat")
            for number in range(nodes - nat + 1, nodes + 1):
                # Its address is what its peers see; no time is lost looking for an UPnP router.
                self.nodes.append(Node(router.host(f"node{number}"), ["--ip", "any", *node_options]))
        self.registry_host = self.nodes[0].host
        self.url = f"http://{self.registry_host.address}/"
        self.fingerprint = ""

    # --- life ---

    @property
    def registry_directory(self) -> Path:
        return self.registry_host.directory / "registry"

    def create(self) -> None:
        """Make the CA, as an operator would, and start the registry."""
        directory = self.registry_directory
        directory.mkdir()
        run_command(self.registry_host, ["registry", "init", "--network", str(self.network), "--dir", "."], directory)
        ca = cert.load_pem((directory / "ca.crt").read_bytes())
        self.fingerprint = f"sha256:{cert.fingerprint(ca, 'sha256').hex()}"
        self.start_registry()

    def start_registry(self) -> None:
        """Start the registry, and wait until it answers."""
        host, directory = self.registry_host, self.registry_directory
        # Not with the options file that init writes: what it does not say has the defaults of wire.md 11.3.
        files = ["--ca", "ca.crt", "--key", "ca.key", "--dh", "dh.pem", "--db", "registry.db"]
        places = ["--logfile", str(host.log / "registry.log"), "--run", str(host.run_directory)]
        options = [*files, *places, "--anonymous-prefix-length", "16", *self.registry_options]
        process = host.start([*self.registry_program, *options], "registry.out.log", env=environment(), cwd=directory)
        self.registry_process = process

        def answers() -> bool:
            if process.poll() is not None:
                raise BedError(f"the registry ended with status {process.returncode}\n{self.bed.tails()}")
            with contextlib.suppress(OSError, BedError):
                return b"CERTIFICATE" in self.call("getCa")
            return False

        wait_until(answers, STARTS, "the registry answers", self.bed.tails)

    def stop_registry(self) -> int:
        """End it as systemd would, and return its exit status."""
        assert self.registry_process is not None
        self.registry_process.terminate()
        return self.registry_process.wait(ENDS)

    def invite(self, prefix_length: int) -> str:
        """A token for a node with a prefix of so many bits, as the operator makes it."""
        words = ["invite", "node@example.org", "--prefix-length", str(prefix_length), "--db", "registry.db", "--json"]
        argv = ["registry", *words, "--config", "re6st-registry.conf"]
        done = run_command(self.registry_host, argv, self.registry_directory)
        token: str = json.loads(done.stdout)["token"]
        return token

    def enrol(self) -> None:
        """Enrol every node: first the registry's own, then two at a time."""
        first, *others = self.nodes
        first.enrol(self.url, self.fingerprint)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda node: node.enrol(self.url, self.fingerprint), others))

    def start(self) -> None:
        """The whole network: registry, certificates, nodes."""
        self.create()
        self.enrol()
        for node in self.nodes:
            node.start()

    # --- what it is like ---

    def call(self, method: str, query: str = "") -> bytes:
        """A call of the registry from its own host, which may call the restricted methods. Raises OSError, BedError."""

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", 80), 10)

        connection = http.client.HTTPConnection("127.0.0.1", timeout=10)
        with contextlib.closing(connection):
            connection.sock = self.registry_host.namespace.call(connect)
            try:
                connection.request("GET", f"/{method}?{query}")
                response = connection.getresponse()
                body = response.read()
            except http.client.HTTPException as error:
                raise BedError(f"{method}: {error!r}") from None
        if response.status not in (200, 204):
            raise BedError(f"{method}: status {response.status}")
        return body

    def pings(
        self, nodes: Sequence[Node] | None = None, timeout: float = 2.0, size: int = 64
    ) -> dict[tuple[Node, Node], float | None]:
        """Round trips in seconds between all pairs of nodes, by their re6st addresses; None where none came back."""
        nodes = self.nodes if nodes is None else nodes
        return self.ping(list(permutations(nodes, 2)), timeout, size)

    def ping(
        self, pairs: Sequence[tuple[Node, Node]], timeout: float = 2.0, size: int = 64
    ) -> dict[tuple[Node, Node], float | None]:
        """Round trips in seconds between these pairs of nodes, all at once; None where none came back."""
        known = {(a.host, b.address): (a, b) for a, b in pairs}
        return {known[pair]: rtt for pair, rtt in ping_pairs(known, timeout, size).items()}

    def wait_connected(self, timeout: float, nodes: Sequence[Node] | None = None) -> None:
        """Wait until every node, or each of these, reaches every other one.

        Only the pairs that have not answered are asked again, and few at a time: forty nodes are 1,560 pairs, whose
        pings alone would keep a small machine busy, so that none came back in time. At the end all are asked once more.
        Raises AssertionError when it takes too long, BedError when a node ends meanwhile.
        """
        nodes = self.nodes if nodes is None else nodes
        pairs = list(permutations(nodes, 2))
        silent = list(pairs)

        def still_silent(asked: Sequence[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
            few = (asked[i : i + PAIRS_AT_ONCE] for i in range(0, len(asked), PAIRS_AT_ONCE))
            return [pair for part in few for pair, rtt in self.ping(part, timeout=0.5).items() if rtt is None]

        def connected() -> bool:
            self.check_alive()
            silent[:] = still_silent(silent) or still_silent(pairs)
            return not silent

        def context() -> str:
            return f"no answer: {', '.join(f'{a.name} -> {b.name}' for a, b in silent)}\n{self.bed.tails()}"

        wait_until(connected, timeout, "every node reaches every other one", context)

    def wait_single_tunnels(self, timeout: float, least: int = 0) -> None:
        """Wait until no tunnel is being opened, and none is to be closed again since both of a pair opened one.

        From then on those that are there, which are `least` or more, stay; others may come where some pair has none.
        Raises AssertionError, BedError.
        """

        tunnels: set[Tunnel] = set()
        clients: list[tuple[str, list[str]]] = []

        def holds() -> bool:
            self.check_alive()
            tunnels.clear()
            tunnels.update(self.tunnels())
            programs = [(node.name, words) for node in self.nodes for words in node.host.processes().values()]
            clients[:] = [
                (n, words) for n, words in programs if Path(words[0]).name == "openvpn" and "--client" in words
            ]
            pairs = {frozenset((tunnel.client, tunnel.server)) for tunnel in tunnels}
            return least <= len(tunnels) == len(pairs) == len(clients)

        def context() -> str:
            used = ", ".join(sorted(f"{tunnel.client.name} -> {tunnel.server.name}" for tunnel in tunnels))
            opened = ", ".join(sorted(f"{name}: {words[words.index('--remote') + 1]}" for name, words in clients))
            return f"in use: {used}\nopened: {opened}\n{self.bed.tails()}"

        wait_until(holds, timeout, f"{least} tunnels or more, one for a pair of nodes at most", context)

    def check_alive(self) -> None:
        """Raises BedError if a node has ended that nobody ended."""
        for node in self.nodes:
            if node.process is not None and (status := node.process.poll()) is not None:
                raise BedError(f"re6stnet on {node.name} ended with status {status}\n{self.bed.tails()}")

    def tunnels(self) -> set[Tunnel]:
        """The tunnels that babeld uses, each once, from the side that opened it."""
        owners = {node.subnet: node for node in self.nodes}
        found: set[Tunnel] = set()
        for node in self.nodes:
            table = node.babel()
            # The next hop of a route with refmetric 0 is the owner of its destination (wire.md 10.3).
            hops = {route.via: route.destination for route in table.routes.values() if route.refmetric == 0}
            for neighbour in table.neighbours.values():
                peer = owners.get(hops.get(neighbour.key, self.network))
                if peer and neighbour.cost < INFINITY and _is_client(neighbour.interface):
                    found.add(Tunnel(node, peer))
        return found

    def forget(self, node: Node) -> None:
        """Remove what a node remembers (its cache), as on a new disk."""
        shutil.rmtree(node.host.state)
        node.host.state.mkdir()


def _is_client(name: str) -> bool:
    """Whether an interface is one of a client tunnel."""
    interface = interfaces.parse(name)
    return interface is not None and interface.role is Role.CLIENT
