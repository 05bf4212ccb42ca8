"""What every project has: a licence that is named the same everywhere, a version in one place, a changelog of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from re6st import __version__

ROOT = Path(__file__).parents[2]
SPDX = "SPDX-License-Identifier: Apache-2.0"
MAIN_MODULES = ("__init__", "cli/node/main", "cli/registry/main", "cli/conf/main", "cli/status/main")
APACHE = Path("/usr/share/common-licenses/Apache-2.0")
"""The text as Debian has it."""


def test_the_licence_is_the_whole_text_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "9. Accepting Warranty or Additional Liability." in text
    assert "APPENDIX: How to apply the Apache License to your work." in text
    if APACHE.exists():
        assert text == APACHE.read_text()
    assert "Copyright 2026 the re6st authors" in (ROOT / "NOTICE").read_text()


@pytest.mark.parametrize("name", MAIN_MODULES)
def test_main_modules_name_it(name: str) -> None:
    head = (ROOT / f"re6st/{name}.py").read_text().splitlines()[:2]
    assert head == ["# SPDX-FileCopyrightText: 2026 the re6st authors", f"# {SPDX}"]


def test_packages_name_it() -> None:
    assert "license" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    assert 'license="Apache-2.0"' in (ROOT / "setup.py").read_text()
    copyright_ = (ROOT / "debian/copyright").read_text()
    assert re.search(r"^Files: \*\nCopyright: 2026 the re6st authors\nLicense: Apache-2.0$", copyright_, re.M)
    assert "Apache License 2.0" in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_changelog_has_the_version() -> None:
    sections = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert sections[0] == ("Unreleased", "")
    assert [name for name, _ in sections[1:]] == [__version__]
    assert all(date for _, date in sections[1:])


def test_pages_beside_the_readme_are_linked_and_their_links_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"):
        assert f"({name})" in readme
        for target in re.findall(r"\]\(([^)#:]+)[)#]", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), (name, target)


def test_nobody_is_sent_to_an_address_that_nobody_reads() -> None:
    assert "@" not in (ROOT / "SECURITY.md").read_text()
