"""Another key for the same subnet, killed at any step (client/rekey.py), with a registry over real HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st.api import http
from re6st.client import rekey
from re6st.client.files import Files
from re6st.client.registry_client import RegistryClient, RegistryKeyError, RegistryRefused, RegistryUnreachable
from re6st.client.rekey import change_key
from re6st.core.wire.rpc import METHODS
from re6st.keys import pki
from re6st.linux import disk
from tests.unit.registry_world import DAY, B, World


class Killed(BaseException):
    """As by kill -9."""


class Steps:
    """What a run does to the disk and at the registry; it is killed before the step `last`, or behind it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.last: int | None = None
        self.behind = False

    def kill_at(self, step: int, *, behind: bool) -> None:
        self.done, self.last, self.behind = [], step, behind

    def __call__(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._before(name)
            try:
                return work(*args, **kwargs)
            finally:
                self._after()

        return counted

    def call(self, work: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(client: RegistryClient, method: str, **arguments: str) -> Any:
            self._before(method)
            result = await work(client, method, **arguments)
            self._after()
            return result

        return counted

    def _before(self, name: str) -> None:
        self.done.append(name)
        if len(self.done) == self.last and not self.behind:
            raise Killed

    def _after(self) -> None:
        if len(self.done) == self.last and self.behind:
            raise Killed


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, steps(name, getattr(os, name)))
    monkeypatch.setattr(Path, "unlink", steps("unlink", Path.unlink))
    monkeypatch.setattr(RegistryClient, "call", steps.call(RegistryClient.call))
    return steps


@pytest.fixture
def files(tmp_path: Path) -> Files:
    etc = tmp_path / "etc"
    etc.mkdir()
    return Files(etc / "ca.crt", etc / "cert.crt", etc / "cert.key")


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


async def enrol(world: World, files: Files) -> int:
    await world.enrol()
    own = await world.enrol()
    files.ca.write_bytes(cert.to_pem(world.authority.trust.ca))
    files.cert.write_bytes(cert.to_pem(own))
    disk.write_private(files.key, cert.key_to_pem(world.key))
    return own.serial_number


def url(world: World) -> str:
    return f"http://127.0.0.1:{world.port}/"


def load(world: World, files: Files) -> cert.Identity:
    """What re6stnet would start with."""
    return cert.Identity.load(files.ca, files.cert, files.key, datetime.fromtimestamp(world.now, UTC))


def revoked(world: World) -> set[int]:
    return set(world.store.rows.crl())


@pytest.fixture(autouse=True)
def clock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(world.now, tz)

    monkeypatch.setattr(rekey, "datetime", Clock)


def test_the_key_is_another_one_and_the_subnet_the_same(world: World, files: Files) -> None:
    async def test(world: World) -> None:
        old = await enrol(world, files)
        made = await change_key(url(world), files)
        found = load(world, files)
        assert found.der == made.der
        assert found.prefix == B
        assert not pki.same_key(found.key.public_key(), world.key.public_key())
        assert revoked(world) == {old}
        assert files.key.stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in files.ca.parent.iterdir()) == ["ca.crt", "cert.crt", "cert.key"]

    world.run(test)


def test_the_old_certificate_may_be_kept(world: World, files: Files) -> None:
    async def test(world: World) -> None:
        await enrol(world, files)
        await change_key(url(world), files, keep_old=True)
        assert not pki.same_key(load(world, files).key.public_key(), world.key.public_key())
        assert revoked(world) == set()

    world.run(test)


def test_killed_at_any_step_it_works_and_is_finished_by_the_next_run(world: World, files: Files, steps: Steps) -> None:
    async def test(world: World) -> None:
        first = await enrol(world, files)
        steps.done.clear()
        await change_key(url(world), files)
        whole = steps.done
        assert whole.index("rekeyCertificate") > whole.index("link"), "the key is on the disk before it is told"
        assert whole.index("revokeSuperseded") > max(i for i, each in enumerate(whole) if each == "replace")
        assert revoked(world) == {first}
        for number in range(len(whole)):
            for behind in (False, True):
                world.now += DAY  # a node may change its key once a day
                before = load(world, files)
                steps.kill_at(number + 1, behind=behind)
                with pytest.raises(Killed):
                    await change_key(url(world), files)
                steps.last = None
                between = load(world, files)
                assert between.cert.serial_number not in revoked(world), whole[number]
                assert between.prefix == B
                await change_key(url(world), files)
                after = load(world, files)
                assert not pki.same_key(after.key.public_key(), before.key.public_key())
                assert after.cert.serial_number == (await world.registry.certificate(B)).serial_number
                assert before.cert.serial_number in revoked(world)
                assert after.cert.serial_number not in revoked(world)
                assert not list(files.ca.parent.glob("*.next"))

    world.run(test)


def test_a_registry_that_does_not_answer_costs_nothing(world: World, files: Files) -> None:
    async def test(world: World) -> None:
        await enrol(world, files)
        with pytest.raises(RegistryUnreachable):
            await change_key("http://127.0.0.1:1/", files)
        assert pki.same_key(load(world, files).key.public_key(), world.key.public_key())
        begun = files.key.with_name("cert.key.next")
        assert begun.stat().st_mode & 0o777 == 0o600
        await change_key(url(world), files)
        assert not pki.same_key(load(world, files).key.public_key(), world.key.public_key())
        assert not begun.exists()

    world.run(test)


def test_a_registry_that_cannot_is_told_apart(world: World, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        await enrol(world, files)
        known = {name: method for name, method in METHODS.items() if name != "rekeyCertificate"}
        monkeypatch.setattr(http, "METHODS", known)
        with pytest.raises(RegistryRefused) as refused:
            await change_key(url(world), files)
        assert refused.value.status == 400

    world.run(test)


def test_who_has_the_old_key_is_too_late(world: World, files: Files) -> None:
    """The thief and the owner have the same key: who changes it first has the subnet."""

    async def test(world: World) -> None:
        await enrol(world, files)
        stolen = {path: path.read_bytes() for path in (files.cert, files.key)}
        await change_key(url(world), files)
        for path, data in stolen.items():
            path.write_bytes(data)
        with pytest.raises(RegistryKeyError, match="another key for 1/16"):
            await change_key(url(world), files)

    world.run(test)


def plant_of_another_user(path: Path) -> None:
    path.write_bytes(cert.key_to_pem(cert.new_key()))
    path.chmod(0o600)
    os.chown(path, 64002, 64003)


def plant_readable(path: Path) -> None:
    path.write_bytes(cert.key_to_pem(cert.new_key()))
    path.chmod(0o644)


def plant_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    plant_of_another_user(target)
    os.chown(target, os.geteuid(), os.getegid())
    path.symlink_to(target)


def plant_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def plant_directory(path: Path) -> None:
    path.mkdir()


def plant_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (plant_of_another_user, "belongs to the user 64002"),
        (plant_readable, "others may read or write"),
        (plant_link, "is a symbolic link"),
        (plant_link_to_nothing, "is a symbolic link"),
        (plant_directory, "is not a file"),
        (plant_pipe, "is not a file"),
    ],
)
def test_a_key_that_somebody_else_may_have_put_there_is_not_taken(
    world: World, files: Files, plant: Callable[[Path], None], why: str
) -> None:
    """Who may make files in the directory would have the subnet, at the moment when a key is changed after a theft."""

    async def test(world: World) -> None:
        await enrol(world, files)
        plant(files.key.with_name("cert.key.next"))
        with pytest.raises(cert.CertError, match=f"cert.key.next .*{why}|{why}.*cert.key.next.*: remove it"):
            await change_key(url(world), files)
        assert pki.same_key(load(world, files).key.public_key(), world.key.public_key())
        assert revoked(world) == set()

    world.run(test)
