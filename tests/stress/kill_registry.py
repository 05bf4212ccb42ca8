"""Kills a registry with -9 at random moments under load, and looks for what was lost.

    python -m tests.stress.kill_registry [--rounds 200] [--seed N] [--clients 8]

Each round starts the registry on the same database, checks that all is there that a client was told before, loads it
with requests of all kinds that write, and kills it: some rounds already while it starts. Prints what it did as one line
of JSON, and every problem found; the status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.wire.params import decode, version_number
from re6st.core.wire.rpc import HEADER, Ratchet, target
from tests.stress.checker import Checker

ROOT = Path(__file__).parents[2]
START_LIMIT = 60.0
LONGEST_LOAD = 0.8
"""Seconds from the registry's first answer to its end."""


class Killed(Exception):
    """No answer came: what was asked may have happened or not."""


@dataclass
class Node:
    """A certificate that a client received, and what was asked for since: each may have happened or not."""

    prefix: Prefix
    serial: int
    pem: str
    superseded: bool = False
    renewing: bool = False
    revoking: bool = False
    revoked: bool = False
    """The registry said so."""


@dataclass
class Token:
    added: bool = False
    """The registry said so."""
    deleting: bool = False
    received: int = 0
    """Certificates got for it."""


class Process:
    """A registry that can be killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", "re6st.cli.registry.main"]
        options = ["init", "--network", "2001:db8:42::/48", "--dir", str(directory), "--anonymous"]
        subprocess.run(self._command + options, check=True, stdout=subprocess.DEVNULL, env=self._environment)

    def start(self) -> None:
        options = ["@re6st-registry.conf", "--port", str(self.port), "-4", "127.0.0.1", "-6", "", "--db", "registry.db"]
        options += ["--anonymous-prefix-length", "20", "-l", "log", "-r", ".", "--web", "off"]
        with open(self.directory / "errors", "ab") as errors:
            self._process = subprocess.Popen(
                self._command + options, cwd=self.directory, env=self._environment, stderr=errors
            )

    async def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                raise SystemExit(f"the registry does not start again: {(self.directory / 'errors').read_text()}")
            with suppress(OSError, asyncio.IncompleteReadError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        raise SystemExit("the registry does not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def get(self, path: str, header: str = "") -> tuple[int, bytes]:
        """Status and body of a whole answer. Raises Killed."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            raise Killed from None
        try:
            extra = f"{HEADER}: {header}\r\n" if header else ""
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode("ascii"))
            answer = await reader.read()
        except OSError:
            raise Killed from None
        finally:
            writer.close()
        head, separator, body = answer.partition(b"\r\n\r\n")
        if not separator:
            raise Killed
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) != int(fields.get(b"content-length", b"0")):
            raise Killed
        return int(head.split(b" ", 2)[1]), body


class Load:
    """The clients: what they ask, and what they were told."""

    def __init__(self, process: Process, seed: int) -> None:
        self.process = process
        self.random = random.Random(seed)
        self.count: Counter[str] = Counter()
        self.problems: list[str] = []
        self.nodes: list[Node] = []
        self.tokens: dict[str, Token] = {}
        self.changes = 0
        """Increases of the network's version that clients were told of."""
        self.version = 0
        self._key = cert.new_key()
        made = cert.new_request(self._key).public_bytes(serialization.Encoding.PEM).decode()
        self._request = {"req": made, "location": "", "ip": ""}
        self._actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._enrol, 8),
            (self._add_token, 6),
            (self._use_token, 6),
            (self._delete_token, 1),
            (self._revoke_serial, 2),
            (self._renew, 3),
            (self._revoke_cn, 2),
            (self._update_hmac, 1),
            (self._parameters, 1),
        ]

    async def run(self) -> None:
        """One client, until the registry is no more."""
        actions, weights = zip(*self._actions, strict=True)
        with suppress(Killed):
            while True:
                await self.random.choices(actions, weights)[0]()

    async def first(self) -> None:
        """The registry's own node, whom nobody revokes."""
        await self._enrol()
        self.nodes[0].revoking = True

    async def _ask(self, method: str, header: str = "", **arguments: str) -> tuple[int, bytes]:
        self.count["requests"] += 1
        status, body = await self.process.get(target(method, arguments), header)
        self.count["answers"] += 1
        if status not in (200, 204):
            self.count[f"status {status}"] += 1
        if status == 500:
            self.problems.append(f"{method}: 500")
        return status, body

    async def _session(self, node: Node, method: str) -> tuple[int, bytes]:
        status, body = await self._ask("hello", client_prefix=node.prefix.bits, protocol="10")
        if status != 200:
            return status, body
        ratchet = Ratchet(cert.decrypt(self._key, body[: len(body) // 2]))
        path = target(method, {"cn": node.prefix.bits})
        return await self._ask(method, ratchet.sign(path.encode("ascii")), cn=node.prefix.bits)

    def _receive(self, pem: bytes) -> Node:
        found = cert.load_pem(pem)
        node = Node(cert.prefix_of_cert(found), found.serial_number, pem.decode())
        self.nodes.append(node)
        self.count["certificates"] += 1
        return node

    def _pick(self, wanted: Callable[[Node], bool]) -> Node | None:
        recent = self.nodes[-60:]
        return self.random.choice(found) if (found := [each for each in recent if wanted(each)]) else None

    async def _enrol(self) -> None:
        status, body = await self._ask("requestCertificate", token="", **self._request)
        if status == 200:
            self._receive(body)

    async def _add_token(self) -> None:
        name = f"token{len(self.tokens)}"
        token = self.tokens[name] = Token()
        status, _ = await self._ask("addToken", email=f"{name}@example.org", token=name)
        token.added = status == 204

    async def _use_token(self) -> None:
        names = [name for name, token in list(self.tokens.items())[-30:] if token.added]
        if not names:
            return
        name = self.random.choice(names)
        status, body = await self._ask("requestCertificate", token=name, **self._request)
        if status == 200:
            self.tokens[name].received += 1
            # Nobody revokes it, so that it shows in the database that the token was used.
            self._receive(body).revoking = True
            self.count["tokens used"] += 1

    async def _delete_token(self) -> None:
        names = [name for name, token in list(self.tokens.items())[-30:] if token.added and not token.received]
        if names:
            token = self.tokens[name := self.random.choice(names)]
            token.deleting = True
            await self._ask("deleteToken", token=name)

    async def _revoke_serial(self) -> None:
        node = self._pick(lambda each: not (each.revoking or each.renewing))
        if node is None:
            return
        node.renewing = node.revoking = True
        status, _ = await self._ask("revoke", cn_or_serial=str(node.serial))
        if status == 204:
            node.revoking, node.revoked = False, True
            self.changes += 1
            self.count["revoked serials"] += 1

    async def _renew(self) -> None:
        node = self._pick(lambda each: each.renewing and not (each.revoking or each.superseded))
        if node is None:
            return
        node.revoking = True  # keep others away
        status, body = await self._session(node, "renewCertificate")
        node.revoking = False
        if status == 200:
            if cert.load_pem(body).serial_number == node.serial:
                self.problems.append(f"serial {node.serial} was revoked but not renewed")
                return
            node.superseded = True
            self._receive(body)
            self.count["renewed"] += 1

    async def _revoke_cn(self) -> None:
        node = self._pick(lambda each: not (each.revoking or each.renewing))
        if node is None or any(each.prefix == node.prefix and each is not node for each in self.nodes):
            return
        node.revoking = True
        status, _ = await self._ask("revoke", cn_or_serial=node.prefix.cn)
        if status == 204:
            node.revoked = True
            self.changes += 1
            self.count["revoked prefixes"] += 1

    async def _update_hmac(self) -> None:
        status, _ = await self._ask("updateHMAC")
        if status == 204:
            self.changes += 1
            self.count["key steps"] += 1

    async def _parameters(self) -> None:
        before, changes = self.version, self.changes
        status, body = await self._session(self.nodes[0], "getNetworkConfig")
        if status != 200:
            return
        number = version_number(decode(body, lambda data: cert.decrypt(self._key, data)).version)
        if number < max(before, changes):
            self.problems.append(f"network version {number} after {before}, and {changes} changes")
        self.version = max(self.version, number)

    # --- what must be there ---

    def check(self, checker: Checker) -> None:
        """Compare the database with what clients were told."""
        self.problems += checker.problems()
        stored = checker.certificates()
        crl = {row[0] for row in checker.rows("SELECT serial FROM crl")}
        superseded = {row[0] for row in checker.rows("SELECT serial FROM re6st_superseded")}
        live: dict[Prefix, Node] = {}
        for node in self.nodes:
            if stored.get(node.prefix.bits) == node.pem:
                if node.prefix in live:
                    self.problems.append(f"prefix {node.prefix} given twice")
                live[node.prefix] = node
            elif not (node.serial in superseded if node.renewing else node.revoking and node.serial in crl):
                self.count["lost"] += 1
                self.problems.append(f"certificate {node.serial} of {node.prefix} lost")
            if node.revoked and node.serial not in crl:
                self.count["lost"] += 1
                self.problems.append(f"revocation of {node.serial} lost")
        serials = [node.serial for node in self.nodes]
        if len(set(serials)) != len(serials):
            self.problems.append("a serial was given twice")
        left = {row[0] for row in checker.rows("SELECT token FROM token")}
        used = Counter(row[0] for row in checker.rows("SELECT email FROM cert WHERE email IS NOT NULL"))
        for name, token in self.tokens.items():
            uses, there = used[f"{name}@example.org"], name in left
            if uses + there > 1 or token.received > 1 or (token.received and not uses):
                self.problems.append(f"{name}: used {uses} times, received {token.received}, there: {there}")
            if token.added and not (uses or there or token.deleting):
                self.count["lost"] += 1
                self.problems.append(f"{name} lost")
        if (number := version_number(_blob(checker))) < max(self.version, self.changes):
            self.problems.append(f"network version {number} in the database after {self.version}")


def _blob(checker: Checker) -> bytes:
    rows = checker.rows("SELECT value FROM config WHERE name = 'version'")
    return rows[0][0] if rows and isinstance(rows[0][0], bytes) else b"\0"


async def rounds(directory: Path, count: int, seed: int, clients: int) -> Load:
    """Run all rounds."""
    process = Process(directory)
    load = Load(process, seed)
    checker = Checker(directory / "registry.db")
    chance = random.Random(seed)
    try:
        for number in range(count):
            process.start()
            if number and chance.random() < 0.15:
                await asyncio.sleep(chance.uniform(0.0, 1.0))
                process.kill()
                load.count["killed while starting"] += 1
                continue
            await process.wait()
            if not number:
                await load.first()
            load.check(checker)
            async with asyncio.TaskGroup() as group:
                for _ in range(clients):
                    group.create_task(load.run(), name="client")
                await asyncio.sleep(chance.uniform(0.0, LONGEST_LOAD))
                process.kill()
            if load.problems:
                break
        process.start()
        await process.wait()
        load.check(checker)
    finally:
        process.kill()
    load.count["rounds"] = number + 1
    return load


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        load = asyncio.run(rounds(Path(directory), options.rounds, options.seed, options.clients))
    print(json.dumps({"seed": options.seed, "lost": 0, **load.count}))
    for problem in load.problems:
        print(problem)
    return 1 if load.problems else 0


if __name__ == "__main__":
    sys.exit(main())
