"""The operator's page with a network that is only simulated: `python -m demo.page --nodes 500`, without root.

The registry, its database and the page are the real ones; certificates have no key of their own, and the mesh is made
up: each node has tunnels to some others, and now and then one goes or comes back. For looking at the page, for its
tests and for its pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv6Network
from pathlib import Path

from cryptography import x509

from re6st import PROTOCOL, cert
from re6st.api.admin import Admin
from re6st.cli.registry import page as registry_web
from re6st.cli.registry.page import DEFAULT_PORT, Listen, WebConfig, WebPage
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import ROOT, WHOLE_NETWORK
from re6st.core.wire.datagrams import Code
from re6st.core.wire.extensions import KNOWN, text
from re6st.core.wire.params import Parameters, version_number
from re6st.registry import Registry
from re6st.registryd.local_node import TIMEOUT, LocalNode
from re6st.registryd.records import LastCall, Slot
from re6st.registryd.resources import Clocks, RegistrySettings, Resources
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.sqlite.store import Store
from re6st.web.bounds import BOUNDS, PageBounds

NETWORK = IPv6Network("2001:db8:42::/48")
LENGTH = 16
TUNNELS = 5
"""That a node opens: each node has twice as many on average."""
OFFLINE = 0.03
"""Which part of the nodes is not there."""
CHUNK = 500
"""Certificates issued at once."""
NAMES = (
    "alice",
    "bob",
    "carol",
    "dave",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "mallory",
    "niaj",
    "olivia",
)
VERSIONS = (("1.0, Linux-6.1", text(KNOWN)), ("1.0, Linux-6.12", text(KNOWN)), ("0.642, Linux-5.10", ""))
"""With the extensions that nodes of this version announce."""
VERSION_SHARES = (60, 35, 5)
NOBODY = x509.Name([])


class SimulatedNode(LocalNode):
    """A registry's node in a mesh that is made up."""

    def __init__(self, network: IPv6Network, chance: random.Random) -> None:
        super().__init__(network, Path("/nonexistent"))
        self.random = chance
        self.tunnels: dict[Prefix, set[Prefix]] = {}
        """To whom each node opened tunnels."""
        self.away: set[Prefix] = set()

    def build(self, prefixes: Sequence[Prefix]) -> None:
        """A random mesh of these nodes, the first one the registry's, and some of them away."""
        count = min(TUNNELS, (len(prefixes) - 1) // 2)
        for each in prefixes:
            others = self.random.sample(prefixes, min(len(prefixes), count + 1))
            self.tunnels[each] = {other for other in others if other != each}
        if len(prefixes) > 10:
            self.away = set(self.random.sample(prefixes[1:], max(1, int(OFFLINE * len(prefixes)))))
            end, *hanging = prefixes[-3:]  # a far branch: two nodes that hang on one
            for peers in self.tunnels.values():
                peers -= set(hanging)
            self.tunnels |= {prefix: {end} for prefix in hanging}
            self.away -= {end, *hanging}

    def change(self) -> None:
        """One node goes or comes back."""
        if self.away and self.random.random() < 0.5:
            self.away.discard(self.random.choice(sorted(self.away)))
        else:
            self.away.add(self.random.choice(sorted(self.tunnels)[1:]))

    async def routes(self) -> list[Prefix] | None:
        return [prefix for prefix in self.tunnels if prefix not in self.away]

    async def ask(self, prefix: Prefix, code: Code, timeout: float = TIMEOUT) -> bytes | None:
        if prefix in self.away:
            return None
        return f"192.0.2.{prefix.value % 254 + 1},1194,tcp".encode()

    def tell(self, prefix: Prefix, code: Code) -> None:
        pass

    async def survey(
        self,
        start: Iterable[Prefix],
        code: Code,
        follow: Callable[[Prefix, bytes], Iterable[Prefix]] | None = None,
        quiet: float = TIMEOUT,
    ) -> dict[Prefix, bytes | None]:
        answers: dict[Prefix, bytes | None] = {}
        pending = list(start)
        while pending:
            prefix = pending.pop()
            if prefix in answers:
                continue
            answers[prefix] = None
            if prefix in self.away or prefix not in self.tunnels:
                continue
            peers = sorted(self.tunnels[prefix] - self.away)
            answers[prefix] = answer = " ".join([str(len(peers)), *(peer.cn for peer in peers)]).encode()
            if follow is not None:
                pending += follow(prefix, answer)
        # Those that nobody opened a tunnel to are found from the other side, in a real mesh.
        if follow is not None and len(answers) < len(self.tunnels):
            rest = [each for each in self.tunnels if each not in answers and each not in self.away]
            if rest:
                answers |= await self.survey(rest, code, follow, quiet)
        return answers


class Simulation:
    """A registry with so many nodes, and its page."""

    def __init__(self, directory: Path, nodes: int, seed: int = 1, clock: Callable[[], float] = time.time) -> None:
        self.nodes = nodes
        self.clock = clock
        self.random = random.Random(seed)
        key = cert.new_key()
        ca = cert.new_ca(
            key, NETWORK, "Simulated mesh", "operator@example.org", datetime.now(UTC).replace(microsecond=0)
        )
        self.authority = cert.Authority(ca, key)
        self.settings = RegistrySettings(
            parameters=Parameters(registry_prefix=ROOT, protocol=PROTOCOL),
            dh=b"",
            communities=WHOLE_NETWORK,
            prefix_length=LENGTH,
            anonymous_prefix_length=0,
            grace=100 * 86400,
        )
        self.store = Store(directory / "registry.db", NETWORK)
        self.resources = Resources(self.authority, self.store, self.settings, Clocks(clock))
        self.node = SimulatedNode(NETWORK, self.random)
        self.registry: Registry
        self.admin: Admin

    async def fill(self) -> None:
        """Issue the certificates, and have most of the nodes seen."""
        self.registry = await Registry.open(self.resources, self.node)
        self.admin = Admin(self.registry)
        await self.registry.parameter_service.start()
        prefixes: list[Prefix] = []
        for start in range(0, self.nodes, CHUNK):
            numbers = range(start, min(start + CHUNK, self.nodes))
            prefixes += await self.store.change(partial(self._issue, numbers=numbers))
        await self.registry.parameter_service.changed()
        self.node.build(prefixes)
        now = self.clock()
        calls = []
        for prefix in prefixes[: -max(1, self.nodes // 100)]:
            version, names = self.random.choices(VERSIONS, VERSION_SHARES)[0]
            age = self.random.expovariate(1 / 86400)
            calls.append(LastCall(prefix, int(now - age), PROTOCOL, version, names))
            self.registry.served.note(prefix, 1 if self.random.random() < 0.02 else self.version())
        await self.store.change(lambda ledger: ledger.mark_seen(calls))

    def version(self) -> int:
        return version_number(self.store.rows.config("version"))

    def _issue(self, ledger: Ledger, numbers: Iterable[int]) -> list[Prefix]:
        public = self.authority.key.public_key()
        found = []
        for number in numbers:
            when = datetime.fromtimestamp(self.clock(), UTC) - timedelta(days=self.random.uniform(0, 340))

            def make(slot: Slot, when: datetime = when) -> x509.Certificate:
                return self.authority.issue(
                    cert.subject_for(NOBODY, slot.number, slot.prefix), public, slot.serial, when
                )

            email = f"{self.random.choice(NAMES)}{number or ''}@example.org"
            found.append(ledger.issue(ROOT, LENGTH, email, make).prefix)
        self.registry.parameter_service.update_version(ledger)
        return found

    @asynccontextmanager
    async def serve(
        self, listen: Listen, origins: tuple[str, ...] = (), *, always_login: bool = False, bounds: PageBounds = BOUNDS
    ) -> AsyncIterator[WebPage]:
        """Serve the page meanwhile."""
        config = WebConfig(listen, always_login, "https://re6st.example.org/", 80)
        page = WebPage(config, registry_web.listen(config), self.registry, self.admin, origins, bounds)
        self.admin.new_login = page.new_login
        task = asyncio.create_task(page.run())
        try:
            yield page
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            page.close()

    async def close(self) -> None:
        await self.registry.parameter_service.stop()
        self.store.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.page", description="The operator's page, simulated.")
    add = parser.add_argument
    add("--nodes", type=int, default=500, metavar="N", help="how many nodes (default: 500)")
    add("--port", type=int, default=DEFAULT_PORT, metavar="N", help="on 127.0.0.1 (default: %(default)s)")
    add("--change", type=float, default=5, metavar="S", help="a node goes or comes so often; 0: never (default: 5)")
    options = parser.parse_args(arguments)
    if options.nodes < 1:
        parser.error("--nodes: a network has one node or more")
    try:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(_run(Path(directory), options))
    except KeyboardInterrupt:
        pass
    except registry_web.WebError as error:
        print(f"demo.page: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(directory: Path, options: argparse.Namespace) -> None:
    simulation = Simulation(directory, options.nodes)
    await simulation.fill()
    try:
        async with simulation.serve(Listen(port=options.port)):
            print(f"http://127.0.0.1:{options.port}/    Ctrl-C ends it", flush=True)
            while True:
                await asyncio.sleep(options.change or 3600)
                if options.change:
                    simulation.node.change()
    finally:
        await simulation.close()


if __name__ == "__main__":
    sys.exit(main())
