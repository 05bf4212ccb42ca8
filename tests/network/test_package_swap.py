"""A machine changes from the older software's package to ours, and back, by one command of apt each.

The older package is a stand-in with the real programs (testbed/older_package.py), under systemd as ours is. Its machine
has the registry, with a hundred certificates, half-way through a change of babel's key, and the network's first node;
two nodes are outside.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import serialization

from re6st import cert
from re6st.cli.registry.init import FFDHE2048
from re6st.client.registry_client import RegistryClient
from re6st.core.prefix import Prefix, address
from re6st.core.wire import params
from testbed import Bed, Node, wait_until
from testbed.background import in_background
from testbed.host import Host
from testbed.machine import Machine
from testbed.namespace import BedError
from testbed.network import NETWORK
from testbed.older_package import NAME, build
from testbed.pings import Pinger, ping
from testbed.reference import InstallError, install

T = TypeVar("T")
Rows = dict[str, list[list[Any]]]

PATIENCE = 180
"""Seconds that the older node may take to be in the network, and 0.642 fails now and then; usual: 10 to 30."""
CERTIFICATES = 100
OPTIONS = """\
ca ca.crt
key ca.key
dh dh.pem
prefix-length 16
anonymous-prefix-length 16
hello 2
client-count 3
"""
REGISTRY_LINE, NODE_LINE = "web 127.0.0.1:8326\n", "accept-route 192.168.7.0/24\n"
"""Options that the older one does not know, and would not start with."""
SLACK = 15
"""Seconds that a busy machine may take longer."""
DUMP = """
import json, sqlite3
db = sqlite3.connect("file:{path}?mode=ro", uri=True)
db.text_factory = bytes
def plain(value): return value.decode("latin-1") if isinstance(value, bytes) else value
print(json.dumps({{
    table: [[plain(value) for value in row] for row in db.execute(f"SELECT * FROM {{table}} ORDER BY 1")]
    for table in ("config", "token", "cert", "crl")
}}))
"""


@pytest.fixture(scope="module")
def reference() -> Path:
    try:
        return install()
    except InstallError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def packages(package: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ours, and the older one."""
    return package, build(tmp_path_factory.mktemp("older"), reference)


class Swap:
    """The machine, the nodes outside, and what was seen of them."""

    def __init__(self, machine: Machine, outside: list[Node]) -> None:
        self.machine = machine
        self.host = machine.host
        self.outside = outside
        self.address = address(NETWORK, Prefix.from_cn("0/16"))

    def call(self, method: str, **query: str) -> bytes:
        """A call of the registry from its own machine. Raises BedError, OSError."""
        return get(self.host, "127.0.0.1", f"/{method}?{urlencode(query)}")

    def as_node(self, identity: cert.Identity) -> params.Parameters:
        """What the registry tells somebody of the network. Raises RegistryError."""

        async def ask() -> bytes:
            return await RegistryClient(f"http://{self.host.address}/", identity, timeout=30).get_network_config()

        data = self.outside[0].host.namespace.call(lambda: asyncio.run(ask()))
        return params.decode(data, lambda encrypted: cert.decrypt(identity.key, encrypted))

    def rows(self, directory: str) -> Rows:
        """What is in the registry's database, of the tables that both kinds know."""
        found: Rows = json.loads(
            self.machine.run("python3", "-c", DUMP.format(path=f"/var/lib/{directory}/registry.db"))
        )
        return found

    def assert_kept(self, directory: str, rows: Rows, *tables: str) -> None:
        """All that was acknowledged is in the database there."""
        found = self.rows(directory)
        for table in tables or ("cert", "crl", "config", "token"):
            assert kept(found, table) == kept(rows, table), table

    def logs(self) -> str:
        said = "".join(self.machine.journal(unit) for unit in ("re6stnet", "re6st-registry"))
        return f"{self.host.bed.tails()}\n{said[-6000:]}"

    def apt(self, names: str) -> str:
        """The one command."""
        return self.machine.run("sh", "-c", f"exec apt-get install -y /srv/{names} 2>&1")

    def check(
        self, members: list[cert.Identity], evicted: list[cert.Identity], keys: tuple[bytes | None, bytes | None]
    ) -> None:
        """Both services run, and tell nodes who is revoked, and their keys."""
        self.wait(self.is_up, "both services run, and are enabled")
        for each in (members[0], members[50], members[-1]):
            found = self.as_node(each)
            assert (found.babel_hmac_sign, found.babel_hmac_accept) == keys
            assert found.crl == {one.cert.serial_number for one in evicted}

    def is_reached(self) -> bool:
        return all(ping(node.host, self.address, 1) is not None for node in self.outside)

    def wait(self, condition: Callable[[], T], what: str) -> T:
        return wait_until(condition, PATIENCE, what, self.logs)

    def is_up(self) -> bool:
        """Whether both services run, and will after the machine is started again."""
        properties = "--property=ActiveState,UnitFileState"
        argv = ["systemctl", "show", "--value", properties, "re6st-registry", "re6stnet"]
        return self.machine.try_run(argv).stdout.split() == ["active", "enabled"] * 2

    @contextmanager
    def watched(self, what: str) -> Iterator[dict[str, float]]:
        """How long the machine, the two outside and the registry were silent, until the machine is reached again."""
        first, second = self.outside
        gaps: dict[str, float] = {}
        inside, beside = Pinger(first.host, self.address), Pinger(first.host, second.address)
        answered = [time.monotonic()]

        def ask(stop: threading.Event) -> None:
            while not stop.wait(0.2):
                if self.answers():
                    answered.append(time.monotonic())

        with inside.running(), beside.running(), in_background(ask):
            begin = time.monotonic()
            yield gaps
            gaps["command"] = time.monotonic() - begin
            self.wait(self.is_reached, f"{what}: the machine is reached")
            self.wait(self.answers, f"{what}: the registry answers")
        silent = max((later - sooner for sooner, later in pairwise(answered)), default=0.0)
        gaps |= {"machine": inside.longest, "others": beside.longest, "registry": silent}
        print(f"{what}: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in gaps.items())}")

    def answers(self) -> bool:
        try:
            return b"CERTIFICATE" in self.call("getCa")
        except (OSError, BedError):
            return False


def load(node: Node) -> cert.Identity:
    etc = node.host.etc
    return cert.Identity.load(etc / "ca.crt", etc / "cert.crt", etc / "cert.key", datetime.now(UTC))


def certificates(rows: Rows) -> list[list[Any]]:
    return [row for row in rows["cert"] if row[2] not in (None, "reserved")]


def kept(rows: Rows, table: str) -> list[list[Any]]:
    """The rows that must be the same under the other registry: it counts its version up when it starts."""
    if table == "cert":  # what is free may be one leaf or several
        return certificates(rows)
    if table == "config":
        own = ("version", "last_config")
        return [row for row in rows[table] if row[0] not in own and not row[0].startswith("re6st_")]
    return rows[table]


def get(host: Host, where: str, target: str) -> bytes:
    """A call over HTTP from a host. Raises BedError, OSError."""
    connection = http.client.HTTPConnection(where, timeout=20)
    connection.sock = host.namespace.call(lambda: socket.create_connection((where, 80), 20))
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status not in (200, 204):
        raise BedError(f"{target.partition('?')[0]}: status {response.status}")
    return body


def prepare(machine: Machine, bed: Bed, older: Path, ours: Path) -> Swap:
    """The older package installed, configured and joined by hand; a hundred certificates, and a rotation half-way."""
    for package in (older, ours):
        shutil.copy(package, machine.path("/srv"))
    machine.run("sh", "-c", f"apt-get install -y /srv/{NAME}_*.deb")
    etc = machine.path("/etc/re6stnet")
    key = cert.new_key()
    ca = cert.new_ca(key, NETWORK, "swap", "ca@example.org", datetime.now(UTC) - timedelta(hours=1))
    (etc / "ca.crt").write_bytes(cert.to_pem(ca))
    (etc / "ca.key").write_bytes(cert.key_to_pem(key))
    (etc / "ca.key").chmod(0o600)
    (etc / "dh.pem").write_text(FFDHE2048)
    (etc / "re6st-registry.conf").write_text(OPTIONS)
    machine.run("systemctl", "start", "re6st-registry")
    nodes = [Node(bed.host(name), []) for name in ("second", "third")]
    for node in nodes:
        node.options = ["--ip", node.host.address]
    swap = Swap(machine, nodes)
    swap.wait(swap.answers, "the older registry answers")
    url = f"http://{machine.host.address}/"
    fingerprint = f"sha256:{cert.fingerprint(ca, 'sha256').hex()}"
    machine.run("re6st-conf", "--registry", url, "--fingerprint", fingerprint, "--anonymous", "-d", "/etc/re6stnet")
    with (etc / "re6stnet.conf").open("a") as file:
        file.write(f"\nip {machine.host.address}\n")
    for node in nodes:
        node.enrol(url, fingerprint)
    return swap


def test_there_and_back_by_one_command_each(packages: tuple[Path, Path]) -> None:
    ours, older = packages
    with Bed() as bed, Machine(bed.host("first")) as machine:
        swap = prepare(machine, bed, older, ours)
        key = cert.new_key()
        trust = load(swap.outside[0]).trust

        def enrol(token: str = "") -> cert.Identity:
            request = cert.new_request(key).public_bytes(serialization.Encoding.PEM).decode()
            pem = swap.call("requestCertificate", token=token, req=request, location="", ip="")
            return cert.Identity(trust, cert.load_pem(pem), key)

        # Under the older registry: a hundred certificates, and one that is revoked with its prefix; tokens.
        members = [enrol() for _ in range(CERTIFICATES - 3)]
        evicted = [enrol()]
        swap.call("revoke", cn_or_serial=evicted[0].prefix.cn)
        for token in ("abcdefgh", "bcdefghi"):
            swap.call("addToken", email="alice@example.org", token=token)
        swap.call("updateHMAC")
        # After updateHMAC the release on PyPI answers getNetworkConfig with 500, until it is started again.
        machine.run("systemctl", "restart", "re6st-registry")
        swap.wait(swap.answers, "the older registry answers again")
        with swap.watched("the older node starts") as start:
            machine.run("systemctl", "start", "re6stnet")
            for node in swap.outside:
                node.start()
        before, rows = swap.as_node(members[0]), swap.rows("re6stnet")
        assert len(certificates(rows)) == CERTIFICATES
        keys = before.babel_hmac_sign, before.babel_hmac_accept
        assert None not in keys

        with swap.watched("to ours") as forward:
            swap.apt("re6stnet_*.deb")
        swap.assert_kept("re6st-registry", rows)
        swap.check(members, evicted, keys)

        # Acknowledged by ours: they are there under the older one too.
        members += [enrol(), enrol("abcdefgh")]
        evicted.append(members.pop(0))
        swap.call("revoke", cn_or_serial=evicted[1].prefix.cn)
        invite = ["re6st-registry", "invite", "bob@example.org", "--url", "http://x/", "--expires", "2d", "--json"]
        token = json.loads(machine.run(*invite))["token"]
        swap.call("updateHMAC")
        for name, line in (("re6st-registry", REGISTRY_LINE), ("re6stnet", NODE_LINE)):
            with machine.path(f"/etc/re6stnet/{name}.conf").open("a") as file:
                file.write(line)
        swap.check(members, evicted, keys[::-1])
        rows = swap.rows("re6st-registry")
        assert len(certificates(rows)) == CERTIFICATES + 1

        with swap.watched("to the older one") as back:
            said = swap.apt(f"{NAME}_*.deb")
        assert f"registry.db: {CERTIFICATES + 1} certificates, the last serial is {CERTIFICATES + 3}, 2 revoked" in said
        found = swap.rows("re6stnet")
        assert {row[0] for row in found["token"]} == {row[0] for row in rows["token"]} == {"bcdefghi", token}
        swap.assert_kept("re6stnet", rows, "cert", "crl", "config")
        assert swap.call("isToken", token=token) == b"1"
        swap.check(members, evicted, keys[::-1])
        members.append(enrol(token))
        assert members[-1].cert.serial_number == CERTIFICATES + 4

        rows = swap.rows("re6stnet")
        with swap.watched("to ours once more") as again:
            swap.apt("re6stnet_*.deb")
        swap.assert_kept("re6st-registry", rows)
        for name, line in (("re6st-registry", REGISTRY_LINE), ("re6stnet", NODE_LINE)):
            assert machine.path(f"/etc/re6stnet/{name}.conf").read_text().endswith(line)
        swap.call("updateHMAC")
        swap.check(members, evicted, (keys[1], None))

        # No longer than a start of the older one takes, and what apt takes between stop and start.
        for gaps in (forward, back, again):
            assert max(gaps["machine"], gaps["registry"]) < start["machine"] + gaps["command"] + SLACK
            assert gaps["others"] < start["machine"] + SLACK
        interrupted(swap)


def interrupted(swap: Swap) -> None:
    """A removal that ended half-way, for instance as the machine went off: ours begins again."""
    machine, rows = swap.machine, swap.rows("re6st-registry")
    machine.run("/var/lib/dpkg/info/re6stnet.prerm", "remove")
    assert machine.path("/var/lib/re6stnet/registry.db").exists()
    machine.run("systemctl", "start", "re6st-registry")
    swap.assert_kept("re6st-registry", rows)
    machine.run("/var/lib/dpkg/info/re6stnet.prerm", "remove", "in-favour", NAME, "0.657")
    machine.run("/var/lib/dpkg/info/re6stnet.postinst", "abort-remove", "in-favour", NAME, "0.657")
    swap.wait(swap.is_up, "both services run again")
    swap.assert_kept("re6st-registry", rows)
    # Nor does it cost anything to forget the older package.
    machine.run("dpkg", "--purge", NAME)
    swap.assert_kept("re6st-registry", rows)
    assert swap.is_up()
