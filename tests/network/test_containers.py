"""The image of Containerfile, run by podman with the rights that docs/containers.md names and no more."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from testbed import Bed, Host, wait_until
from testbed.network import NETWORK, ROOT

TREES = Path(os.environ.get("RE6ST_TREES", "/var/cache/re6st-trees"))
FORMS = 120
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
"""The usual ones of podman and buildah are more than a process in a sandbox may ask for."""
NODE_RIGHTS = ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"]
SETTINGS = {
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.forwarding": 1,
    "net.ipv6.conf.all.accept_redirects": 0,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.dad_transmits": 0,
    "net.ipv6.conf.default.accept_ra": 0,
}


def run(*argv: str | Path, timeout: float = 60, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    if check:
        assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def base_tree() -> Path:
    """Debian's smallest system, of this machine's release: in the place of the image that a registry would give."""
    tree = TREES / "container-base"
    TREES.mkdir(parents=True, exist_ok=True)
    with open(TREES / "container-base.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (tree / "etc/debian_version").exists():
            release = run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
            words = [
                "apt-get",
                "indextargets",
                "--format",
                "$(REPO_URI)",
                "Created-By: Packages",
                f"Codename: {release}",
            ]
            mirror = run(*words).split()[0]
            shutil.rmtree(new := TREES / "container-base.new", ignore_errors=True)
            run("debootstrap", "--variant=minbase", release, new, mirror, timeout=600)
            new.rename(tree)
    return tree


class Store:
    """Images and containers in a directory of the test's."""

    def __init__(self, directory: Path, run_directory: str) -> None:
        self._places = ["--root", str(directory / "store"), "--runroot", run_directory]
        self._places += ["--storage-driver", "vfs"]

    def buildah(self, *words: str | Path, timeout: float = 300) -> str:
        return run("buildah", *self._places, *words, timeout=timeout)

    def podman(self, *words: str | Path, check: bool = True) -> str:
        quiet = "PODMAN_IGNORE_CGROUPSV1_WARNING=1"  # podman 5 has a line of it for each call
        ours = [*self._places, "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
        return run("env", quiet, "podman", *ours, *words, check=check)

    def build(self, package: Path, directory: Path) -> None:
        """The image re6st, as docs/containers.md says; packages come by the way that apt has on this machine."""
        container = self.buildah("from", "scratch").strip()
        self.buildah("copy", container, base_tree(), "/")
        self.buildah("commit", "-q", container, "localhost/base")
        self.buildah("rm", container)
        (directory / "dist").mkdir(parents=True)
        shutil.copy(package, directory / "dist")
        shutil.copy(ROOT / "Containerfile", directory)
        words = ["bud", *LIMITS, "--isolation", "chroot", "--network", "host", "--volume", "/etc/apt:/etc/apt:ro"]
        self.buildah(*words, "--build-arg", "BASE=localhost/base", "-t", "localhost/re6st", directory, timeout=500)


@pytest.fixture(scope="module")
def store(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    for program in ("podman", "buildah", "runc", "debootstrap"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: ./run setup installs it")
    directory = tmp_path_factory.mktemp("containers")
    with tempfile.TemporaryDirectory(prefix="re6st-", dir="/run") as short:  # podman takes 50 characters at most
        store = Store(directory, short)
        store.build(package, directory / "context")
        alone = ["run", "--rm", "--network", "none", *LIMITS, "localhost/base", "true"]
        if reason := store.podman(*alone, check=False).strip():
            pytest.skip(f"no container runs on this machine: {reason}")
        yield store
        store.podman("rm", "--all", "--force")


class Machine:
    """A host of the bed whose network containers have, and its directories."""

    def __init__(self, store: Store, host: Host) -> None:
        self.store = store
        self.host = host
        self.registry_state = host.directory / "registry-state"
        self.registry_state.mkdir()

    def words(self, rights: list[str], *more: str) -> list[str]:
        found = [*LIMITS, "--read-only", "--cap-drop", "all", *(f"--cap-add={right}" for right in rights)]
        found += ["--network", f"ns:/run/netns/{self.host.namespace.full_name}", "-v", f"{self.host.etc}:/etc/re6stnet"]
        return [*found, *more, "localhost/re6st"]

    def once(self, *command: str) -> str:
        return self.store.podman("run", "--rm", *self.words([]), *command)

    def start(self, name: str, rights: list[str], options: list[str], *command: str) -> None:
        self.store.podman("run", "--detach", "--name", name, *self.words(rights, *options), *command)

    def node(self, name: str, settings: dict[str, int]) -> None:
        options = ["--device", "/dev/net/tun", "-v", f"{self.host.state}:/var/lib/re6stnet"]
        options += [f"--sysctl={setting}={value}" for setting, value in settings.items()]
        self.start(name, NODE_RIGHTS, options)

    def address(self) -> str:
        shown = self.host.ip("-6", "-o", "address", "show", "dev", "lo")
        found = [word.partition("/")[0] for word in shown.split() if "/" in word]
        return next((ip for ip in found if IPv6Network(ip).subnet_of(NETWORK)), "")


def test_registry_and_nodes_live_in_containers_with_few_rights(store: Store, bed: Bed) -> None:
    first, second = (Machine(store, bed.host(name)) for name in ("first", "second"))
    first.once("re6st-registry", "init", "--network", str(NETWORK), "--anonymous")
    state = ["-v", f"{first.registry_state}:/var/lib/re6st-registry"]
    first.start("registry", ["NET_BIND_SERVICE"], state, "re6st-registry", "@re6st-registry.conf")
    url = f"http://{first.host.address}/"

    def logs() -> str:
        return "".join(store.podman("logs", name, check=False) for name in ("registry", "first", "second"))

    wait_until(lambda: "listening on 0.0.0.0 port 80" in logs(), 30, "the registry listens", logs)
    for machine in (first, second):
        machine.once("re6st-conf", "--registry", url, "--anonymous")

    # A container without the settings names them, before babeld ends again and again.
    check = second.store.podman(
        "run", "--rm", *second.words(NODE_RIGHTS), "re6stnet", "@re6stnet.conf", "--check", check=False
    )
    assert "/proc/sys is read-only, and babeld ends without net.ipv6.conf.all.forwarding=1" in check, check

    first.node("first", SETTINGS)
    second.node("second", SETTINGS)
    wait_until(lambda: bool(first.address() and second.address()), FORMS, "both have their addresses", logs)
    ping = ["ping", "-c", "1", "-W", "1", first.address()]
    reaches = lambda: second.host.run(ping, check=False).returncode == 0  # noqa: E731
    wait_until(reaches, FORMS, "one node reaches the other", logs)
    assert "health: ok" in store.podman("exec", "second", "re6st-status")
    said = store.podman("exec", "second", "cat", "/proc/1/status")
    assert f"CapEff:\t{(1 << 10) + (1 << 12) + (1 << 13):016x}" in said
    told = store.podman("logs", "second")
    assert "WARNING re6st.linux.kernel" not in told, "no setting that could not be made is worth a line"
    for name in ("second", "first", "registry"):
        store.podman("stop", "--time", "10", name)
        assert store.podman("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
    assert not second.address(), "it leaves nothing behind"
