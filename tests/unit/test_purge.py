"""Our package and the older one, one after the other on a machine: no purge takes what the other one needs.

With stand-ins for both, in a root of their own: ours has the relations and the script of debian/, the older one does on
purge what that does: it deletes its state and its logs, unless a program /usr/sbin/re6stnet is there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ("etc/re6stnet/cert.key", "var/lib/re6stnet/registry.db", "var/log/re6stnet/re6stnet.log")
OLD_POSTRM = """#!/bin/sh
set -e
if [ "$1" = purge ] && [ ! -x "$DPKG_ROOT/usr/sbin/re6stnet" ]; then
    rm -rf "$DPKG_ROOT/var/lib/re6stnet" "$DPKG_ROOT/var/log/re6stnet"
fi
"""
LOGROTATE = {"re6stnet": "etc/logrotate.d/re6st"}
"""By package; that of the older one has the name of its program."""
OLDER_LOGROTATE = "etc/logrotate.d/re6stnet"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="dpkg installs as root only")


def relations() -> str:
    """What debian/control says of other packages, but for those that a root of a test lacks."""
    control = (ROOT / "debian/control").read_text()
    [ours] = re.findall(r"(?ms)^Package: re6stnet$.*?(?=^Package:|\Z)", control)
    return "".join(re.findall(r"(?m)^(?:Conflicts|Replaces|Provides|Breaks): .*\n", ours))


Dpkg = Callable[..., str]


@pytest.fixture
def dpkg(tmp_path: Path) -> Dpkg:
    root = tmp_path / "root"
    for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "usr/bin", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()

    def run(*argv: str | Path) -> str:
        force = ["--force-script-chrootless", "--force-not-root", "--force-bad-path"]
        done = subprocess.run(["dpkg", f"--root={root}", *force, *argv], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def root(tmp_path: Path, dpkg: Dpkg) -> Path:
    root = tmp_path / "root"
    for name in DATA:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


def script(name: str) -> str:
    """One of ours, without what a root of a test lacks."""
    text = (ROOT / f"debian/re6stnet.{name}").read_text().replace("#DEBHELPER#", "")
    text = text.replace("[ -d /run/systemd/system ]", "false").replace("/usr/lib/re6stnet/prepare-states older", "true")
    return re.sub(r"(?m)^py3clean .*", "", text)


def build(
    directory: Path, name: str, version: str, fields: str = "", postrm: str = "", program: str = "", **scripts: str
) -> Path:
    tree = directory / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    head = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(head + fields)
    for each, text in (("postrm", postrm), *scripts.items()):
        if text:
            (tree / "DEBIAN" / each).write_text(text)
            (tree / "DEBIAN" / each).chmod(0o755)
    if program:
        logrotate = LOGROTATE.get(name, OLDER_LOGROTATE)
        for path, mode in ((program, 0o755), (logrotate, 0o644)):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(f"{name} {version}\n")
            (tree / path).chmod(mode)
        (tree / "DEBIAN/conffiles").write_text(f"/{logrotate}\n")
    made = directory / f"{name}_{version}.deb"
    argv: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return made


def build_ours(directory: Path, version: str) -> Path:
    scripts = {name: script(name) for name in ("preinst", "prerm", "postrm")}
    return build(directory, "re6stnet", version, relations(), program="usr/sbin/re6stnet", **scripts)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    made = build_ours(tmp_path, "1.0.0~rc1")
    assert "usr/sbin\n\tln -s ../bin/re6stnet $(ROOT)/usr/sbin/re6stnet" in (ROOT / "debian/rules").read_text()
    return made


@pytest.fixture(params=["re6st-node", "re6st-node-py3"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return build(tmp_path, request.param, "0.657+slapos1", "", OLD_POSTRM, "usr/sbin/re6stnet")


def name_of(package: Path) -> str:
    return package.name.partition("_")[0]


def active(root: Path) -> list[str]:
    """The files that logrotate reads."""
    return sorted(each.name for each in (root / "etc/logrotate.d").glob("*") if not each.name.endswith(".dpkg-bak"))


def left(root: Path) -> list[str]:
    return [name for name in DATA if (root / name).exists()]


def test_ours_takes_the_place_of_the_older_one_and_purging_its_remains_takes_nothing(
    dpkg: Dpkg, root: Path, ours: Path, older: Path
) -> None:
    dpkg("--install", older)
    dpkg("--install", ours)  # one command
    assert active(root) == ["re6st"], "logrotate is told of each log once"
    dpkg("--purge", name_of(older))
    assert left(root) == list(DATA)
    assert active(root) == ["re6st"]


def test_back_on_the_older_one_purging_our_remains_takes_nothing(
    dpkg: Dpkg, root: Path, ours: Path, older: Path
) -> None:
    dpkg("--install", ours)
    dpkg("--remove", "re6stnet")
    dpkg("--install", older)
    assert "stay: another re6stnet uses them" in dpkg("--purge", "re6stnet")
    assert left(root) == list(DATA)


def test_each_has_its_own_file_for_logrotate_again_and_dpkg_asks_nothing(
    dpkg: Dpkg, root: Path, ours: Path, older: Path, tmp_path: Path
) -> None:
    """There and back by later versions, which bring other files."""
    name = name_of(older)
    dpkg("--install", older)
    dpkg("--install", ours)
    dpkg("--remove", "re6stnet")
    assert active(root) == ["re6stnet"]
    dpkg("--install", build(tmp_path, name, "0.658", "", OLD_POSTRM, "usr/sbin/re6stnet"))
    assert (root / OLDER_LOGROTATE).read_text() == f"{name} 0.658\n"
    dpkg("--install", build_ours(tmp_path, "1.0.1"))
    assert active(root) == ["re6st"]
    assert (root / LOGROTATE["re6stnet"]).read_text() == "re6stnet 1.0.1\n"
    dpkg("--remove", "re6stnet")
    dpkg("--install", build_ours(tmp_path, "1.0.2"))
    assert active(root) == ["re6st"]
    assert (root / LOGROTATE["re6stnet"]).read_text() == "re6stnet 1.0.2\n"
    dpkg("--remove", "re6stnet")
    dpkg("--install", older)
    dpkg("--purge", "re6stnet")
    assert active(root) == ["re6stnet"]
    dpkg("--purge", name)
    assert active(root) == []


def test_where_both_are_removed_the_purge_of_ours_leaves_what_the_older_one_may_need(
    dpkg: Dpkg, root: Path, ours: Path, older: Path
) -> None:
    dpkg("--install", older)
    dpkg("--install", ours)
    dpkg("--remove", "re6stnet")
    dpkg("--purge", "re6stnet")
    assert left(root) == list(DATA)


def test_ours_alone_takes_its_data_with_it_when_it_is_purged(dpkg: Dpkg, root: Path, ours: Path) -> None:
    dpkg("--install", ours)
    dpkg("--remove", "re6stnet")
    assert left(root) == list(DATA)
    dpkg("--purge", "re6stnet")
    assert left(root) == []
    assert not list(root.glob("etc/logrotate.d/*"))


def test_who_asks_for_the_older_name_keeps_ours(
    dpkg: Dpkg, root: Path, ours: Path, older: Path, tmp_path: Path
) -> None:
    """Our packages of these names are newer than any of the older software, and go with ours."""
    name = name_of(older)
    control = (ROOT / "debian/control").read_text()
    assert re.search(rf"(?m)^Package: {name}\n(?:.*\n)*?Depends: .*re6stnet \(>= \$\{{source:Version\}}\)", control)
    dpkg("--install", older)
    same_name = build(tmp_path, name, "1.0.0~rc1", "Depends: re6stnet (>= 1.0.0~rc1)\n")
    dpkg("--install", ours, same_name)
    assert active(root) == ["re6st"]
    dpkg("--purge", name)
    assert left(root) == list(DATA)
    assert (root / "usr/sbin/re6stnet").exists()
