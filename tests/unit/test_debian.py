"""What the Debian package needs, and what it brings along."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = {"pyopenssl": "openssl", "netifaces2": "netifaces"}
"""Names in Debian that are others."""


def needed() -> dict[str, str]:
    """The lowest version of each Python package, by its name."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {name.lower(): version for name, _, version in (each.partition(">=") for each in listed)}


def pinned() -> dict[str, list[str]]:
    """What is packed, each with the hashes of its files."""
    text = (ROOT / "debian/requirements.txt").read_text()
    found = re.findall(r"(?m)^([a-z0-9-]+)==\S+((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", text)
    assert len(found) == len(re.findall(r"(?m)^[^#\s]", text))
    return {name: re.findall(r"--hash=sha256:\w+", hashes) for name, hashes in found}


def test_all_python_packages_are_debians_own_but_aiohttp_of_debian_12() -> None:
    control = (ROOT / "debian/control").read_text()
    [ours] = re.findall(r"(?ms)^Package: re6stnet$.*?(?=^Package:|\Z)", control)
    depends = set(re.findall(r"python3-([a-z0-9-]+)", ours))
    packages = {NAMES.get(name, name) for name in needed()}
    assert depends == packages - {"aiohttp"} | {"psycopg"}, "the last one is only suggested"
    assert f"python3-aiohttp (>= {needed()['aiohttp']})" in (ROOT / "debian/rules").read_text(), "of Debian 13"


def test_what_is_packed_is_taken_by_the_hashes_of_its_files_only() -> None:
    assert "aiohttp" in pinned()
    assert not {"cryptography", "pyopenssl", "cffi"} & set(pinned()), "with a library of its own that nobody updates"
    assert all(pinned().values())
    assert {len(hashes) for hashes in pinned().values()} <= {1, 2}, "of one Python, for two kinds of machine"
    [install] = re.findall(r"(?s)pip install.*?(?<!\\)\n", (ROOT / "debian/rules").read_text())
    assert {"--require-hashes", "--no-deps", "debian/requirements.txt"} <= set(install.split())
    security = (ROOT / "docs/security.md").read_text()
    assert all(name in security for name in pinned()), "named there, with how they are updated"
