"""Two registries on one PostgreSQL, clients of both, and kill -9: what each client was told is checked in the end."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.cli.registry import main as registry
from re6st.core.prefix import MAX_LENGTH, Prefix
from re6st.core.wire.rpc import HEADER, Ratchet, target
from re6st.registryd.postgresql.store import PostgresStore
from re6st.registryd.repository import Lists
from re6st.registryd.sqlite.check import partition_problems
from tests.postgresql_cluster import Cluster
from tests.unit.cli.registry.test_cli_registry import Process, wait_until

T = TypeVar("T")

CLIENTS = 4
ENOUGH = 12
"""Acknowledged changes of each kind before and after the kill."""
LIMIT = 60.0


class Unknown(Exception):
    """No answer, or one that says to come again: nobody knows what became of the call."""


@dataclass
class History:
    """What clients were told, and what they asked for without an answer."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    issued: list[tuple[Prefix, int]] = field(default_factory=list)
    """In the order of the answers, enrolments and renewals."""
    spent: list[str] = field(default_factory=list)
    """Tokens for which somebody got a certificate."""
    evicted: set[Prefix] = field(default_factory=set)
    """Whoever asked for it got an answer, or none."""
    revoked: set[int] = field(default_factory=set)
    """Acknowledged."""
    done: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str) -> None:
        with self.lock:
            self.done[kind] = self.done.get(kind, 0) + 1


class Client:
    """One of several clients: it asks any of the registries, and remembers what it was told."""

    def __init__(self, seed: int, processes: list[Process], key: rsa.RSAPrivateKey, history: History) -> None:
        self._random = random.Random(seed)
        self._processes = processes
        self._key = key
        self._history = history
        self._mine: dict[Prefix, int] = {}
        self._name = f"client{seed}x"
        self._count = 0

    def step(self) -> None:
        kinds: list[Callable[[], None]] = [self._enrol, self._token, self._renew, self._evict]
        try:
            self._random.choice(kinds)()
        except Unknown:
            time.sleep(0.02)

    def _ask(self, path: str, **headers: str) -> tuple[int, bytes]:
        process = self._random.choice(self._processes)
        request = Request(f"http://127.0.0.1:{process.port}{path}", headers=headers)
        try:
            with urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 503:
                raise Unknown from None
            return error.code, b""
        except OSError as error:
            raise Unknown(str(error)) from None

    def _request(self, token: str) -> Prefix | None:
        made = cert.new_request(self._key, ()).public_bytes(serialization.Encoding.PEM).decode()
        status, body = self._ask(f"/requestCertificate?{urlencode({'token': token, 'req': made})}")
        if status != 200:
            assert status == 204, status
            return None
        return self._told(cert.load_pem(body))

    def _told(self, found: x509.Certificate) -> Prefix:
        prefix = cert.prefix_of_cert(found)
        with self._history.lock:
            self._history.issued.append((prefix, found.serial_number))
        self._mine[prefix] = found.serial_number
        return prefix

    def _enrol(self) -> None:
        assert self._request("") is not None
        self._history.note("enrol")

    def _token(self) -> None:
        self._count += 1
        token = f"{self._name}{self._count}"
        status, _ = self._ask(f"/addToken?{urlencode({'token': token, 'email': 'a@b.c'})}")
        assert status in (204, 409), status
        for _ in range(3):  # it is good for one
            try:
                if self._request(token) is not None:
                    self._history.spent.append(token)
            except Unknown:
                continue
        self._history.note("token")

    def _renew(self) -> None:
        """Its serial is revoked, so it gets another one; hello at one registry, the call at any."""
        if not self._mine:
            return
        prefix, serial = self._random.choice(sorted(self._mine.items()))
        if prefix == Prefix(0, 16):
            return
        status, _ = self._ask(f"/revoke?cn_or_serial={serial}")
        assert status in (204, 409), status  # 409: it is, since no answer came before
        self._history.revoked.add(serial)
        status, body = self._ask(f"/hello?client_prefix={prefix.bits}&protocol=10")
        if status != 200:
            raise AssertionError((prefix, serial, status))
        keys = Ratchet(cert.decrypt(self._key, body[:256]))
        path = target("renewCertificate", {"cn": prefix.bits})
        status, body = self._ask(path, **{HEADER: keys.sign(path.encode())})
        if status == 200:
            assert cert.load_pem(body).serial_number > serial
            self._told(cert.load_pem(body))
            self._history.note("renew")

    def _evict(self) -> None:
        chosen = [prefix for prefix in self._mine if prefix != Prefix(0, 16)]
        if len(chosen) < 3:
            return
        prefix = self._random.choice(sorted(chosen))
        serial = self._mine.pop(prefix)
        self._history.evicted.add(prefix)
        status, _ = self._ask(f"/revoke?cn_or_serial={prefix.value}%2F{prefix.length}")
        assert status in (204, 404), status
        if status == 204:
            self._history.revoked.add(serial)
            self._history.note("evict")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    assert registry.main(["init", "--network", "2001:db8:42::/48", "--dir", str(directory), "--anonymous"]) == 0
    return directory


@pytest.fixture
def machines(files: Path, tmp_path: Path, cluster: Cluster) -> Iterator[tuple[str, list[Process], list[Path]]]:
    """Two machines with a registry each."""
    url, directories = cluster.database(), [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        shutil.copytree(files, directory)
        with (directory / "re6st-registry.conf").open("a") as file:
            file.write(f"database {url}\n")
    processes = [Process(directory) for directory in directories]
    try:
        for each in processes:
            wait_until(each.answers)
        yield url, processes, directories
    finally:
        for each in processes:
            each.process.kill()
            each.process.communicate()


def test_nothing_is_given_twice_and_nothing_acknowledged_is_lost(
    machines: tuple[str, list[Process], list[Path]],
) -> None:
    url, processes, directories = machines
    history, key, stop = History(), cert.new_key(2048), threading.Event()
    failures: list[BaseException] = []

    def client(seed: int) -> None:
        mine = Client(seed, processes, key, history)
        try:
            while not stop.is_set():
                mine.step()
        except BaseException as error:
            failures.append(error)
            stop.set()

    def until_enough() -> None:
        before, end = dict(history.done), time.monotonic() + LIMIT
        while any(history.done.get(kind, 0) < before.get(kind, 0) + ENOUGH for kind in KINDS):
            assert time.monotonic() < end, history.done
            if stop.wait(0.02):
                return

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for each in threads:
        each.start()
    try:
        until_enough()
        processes[0].process.kill()
        processes[0].process.communicate()
        until_enough()  # the other one goes on alone
        processes[0] = Process(directories[0])  # the clients have this list
        wait_until(processes[0].answers)
        until_enough()
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert not failures, failures
    check(history, url, cert.Trust(cert.load_pem((directories[0] / "ca.crt").read_bytes())))


KINDS = ("enrol", "token", "renew", "evict")


def check(history: History, url: str, trust: cert.Trust) -> None:
    serials = [serial for _, serial in history.issued]
    assert len(set(serials)) == len(serials), "a serial was given twice"
    assert len(set(history.spent)) == len(history.spent), "a token was spent twice"
    store = PostgresStore(url, trust.network)

    def look(lists: Lists) -> tuple[dict[Prefix, int], set[int], int]:
        held = {}
        for prefix in {prefix for prefix, _ in history.issued}:
            if (issued := lists.issued(prefix)) is not None:
                held[prefix] = issued.serial
        return held, set(lists.crl()), lists.count()

    async def read(query: Callable[[Lists], T]) -> T:
        return await store.browse(query)

    try:
        held, revoked, total = asyncio.run(read(look))
        leaves = asyncio.run(read(lambda lists: _leaves(lists)))
    finally:
        store.close()
    assert history.revoked <= revoked, "a revocation was lost"
    last: dict[Prefix, int] = {}
    for prefix, serial in sorted(history.issued, key=lambda each: each[1]):
        if prefix in last and prefix not in history.evicted:
            assert last[prefix] in history.revoked, f"{prefix} was given twice"
        last[prefix] = serial
    for prefix, serial in last.items():
        if prefix not in history.evicted:
            assert held[prefix] >= serial, f"{prefix} was lost"
    assert total >= len(last.keys() - history.evicted)
    assert list(partition_problems(leaves, MAX_LENGTH - trust.network.prefixlen)) == []


def _leaves(lists: Lists) -> list[Prefix]:
    rows = lists._db.execute(  # type: ignore[attr-defined]
        "SELECT prefix FROM certificate UNION ALL SELECT prefix FROM free_leaf UNION ALL SELECT prefix FROM reserved"
    )
    return sorted(Prefix.from_bits(bits) for (bits,) in rows)
