"""What goes to a package index: complete, and its commands run where it is installed, without this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

from re6st import __version__
from testbed.network import ROOT

COMMANDS = ("re6stnet", "re6st-conf", "re6st-registry", "re6st-status")


def run(*argv: str | Path, cwd: Path) -> str:
    """What a program prints, with nothing of this checkout in its way."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_and_source_are_complete_and_run(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path, ROOT, cwd=tmp_path)  # the wheel is made from the sdist
    run(sys.executable, "-m", "twine", "check", "--strict", *tmp_path.iterdir(), cwd=tmp_path)
    [source], [wheel] = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    files = [path.relative_to(ROOT) for path in (ROOT / "re6st").rglob("*") if path.is_file()]
    ours = {str(path) for path in files if path.suffix != ".pyc"}
    assert ours <= set(zipfile.ZipFile(wheel).namelist())
    metadata = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    assert "License: Apache-2.0" in zipfile.ZipFile(wheel).read(metadata).decode()
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "-c", f"safe.directory={ROOT}", "ls-files", cwd=ROOT).split()
    assert {name for name in tracked if not name.startswith(".") and (ROOT / name).exists()} <= held

    place = tmp_path / "venv"
    run(sys.executable, "-m", "venv", place, cwd=tmp_path)
    python = place / "bin/python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", wheel, cwd=tmp_path)
    # The packages it needs, where this test has them; the order makes ours come first.
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for command in COMMANDS:
        assert run(place / "bin" / command, "--version", cwd=tmp_path).startswith(f"{command} {__version__} ")
        assert (place / "share/bash-completion/completions" / command).exists()
    assert (place / "share/doc/re6stnet/examples/prometheus/alerts.yml").exists()
    where = run(python, "-c", "import re6st; print(re6st.__file__)", cwd=tmp_path)
    assert where.startswith(str(packages))
    made = run(place / "bin/re6st-registry", "init", "--network", "fd42::/48", "-d", tmp_path / "etc", cwd=tmp_path)
    assert "systemctl enable --now re6st-registry" in made
