"""Registries of both kinds on loopback; the deployed software's is from PyPI (testbed/reference.py)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from re6st import cert
from re6st.linux import disk
from testbed import Bed, missing
from testbed.reference import InstallError, install, theirs

ROOT = Path(__file__).parents[2]
NETWORK = IPv6Network("2001:db8:42::/48")
DEADLINE = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of the deployed software's programs."""
    try:
        return install()
    except InstallError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def ours(module: str) -> list[str]:
    """Command of a program of this checkout, from whatever folder it is started in."""
    return ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", module]


def is_token(word: str) -> bool:
    """Tokens of the deployed software have 8 letters, here all different, and ours 18."""
    return word.isalpha() and word.islower() and (len(word) == 18 or len(word) == len(set(word)) == 8)


class Registry:
    """A registry of either kind, which can be stopped and started again on the same files."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.folder = folder
        self.mailbox = folder / "mailbox"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        options = ["--port", str(port), "-4", "127.0.0.1", "-6", ""]
        options += ["--db", str(folder / "registry.db"), "--dh", str(folder / "dh.pem")]
        options += ["--ca", str(folder / "ca.crt"), "--key", str(folder / "ca.key")]
        options += ["--mailhost", str(self.mailbox), "--anonymous-prefix-length", "20", "--prefix-length", "16"]
        options += ["--logfile", str(folder / "registry.log"), "--run", str(folder), "--hello", "7"]
        self.command = command + options

    @contextmanager
    def running(self) -> Iterator[Registry]:
        with open(self.folder / "registry.out", "ab") as output:
            process = subprocess.Popen(self.command, stdout=output, stderr=output, cwd=self.folder)
            try:
                self._wait(process)
                yield self
            finally:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            assert process.poll() is None, (self.folder / "registry.out").read_text()
            try:
                with urllib.request.urlopen(self.url + "getCa", timeout=5) as answer:
                    assert b"BEGIN CERTIFICATE" in answer.read()
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        pytest.fail(f"no registry within {DEADLINE} s: {(self.folder / 'registry.out').read_text()}")

    def mailed_token(self) -> str:
        """The newest token in the mailbox."""
        words = self.mailbox.read_text().split()
        return [word for word in words if is_token(word)][-1]


@pytest.fixture
def bed() -> Iterator[Bed]:
    if reason := missing():
        pytest.skip(reason)
    with Bed() as bed:
        yield bed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a new network."""
    folder = tmp_path / "registry"
    folder.mkdir()
    key = cert.new_key()
    ca = cert.new_ca(key, NETWORK, "interop", "ca@example.org", datetime.now(UTC) - timedelta(hours=1))
    (folder / "ca.crt").write_bytes(cert.to_pem(ca))
    disk.write_private(folder / "ca.key", cert.key_to_pem(key))
    (folder / "dh.pem").write_text("-----BEGIN DH PARAMETERS-----\nMAYCAQ8CAQI=\n-----END DH PARAMETERS-----\n")
    return folder


@pytest.fixture
def our_registry(folder: Path) -> Registry:
    return Registry(ours("re6st.cli.registry.main"), folder)


@pytest.fixture
def their_registry(reference: Path, folder: Path) -> Registry:
    return Registry(theirs(reference, "re6st-registry"), folder)


Conf = Callable[..., subprocess.CompletedProcess[str]]


def conf(command: list[str]) -> Conf:
    def run(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        folder.mkdir(exist_ok=True)
        return subprocess.run(
            [*command, "--registry", url, "--dir", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    return run


@pytest.fixture
def their_conf_command(reference: Path) -> list[str]:
    return theirs(reference, "re6st-conf")


@pytest.fixture
def our_conf() -> Conf:
    return conf(ours("re6st.cli.conf.main"))


@pytest.fixture
def their_conf(their_conf_command: list[str]) -> Conf:
    return conf(their_conf_command)
