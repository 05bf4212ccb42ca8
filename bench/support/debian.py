"""Programs of Debian's packages, of the release that runs here and of others, unpacked to .cache/bench.

Installed, they would start services on this machine. A package of another release is fetched from the mirror that apt
uses here, with apt's own check of signatures, and lists of its own.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.support.results import ROOT

CACHE = ROOT / ".cache" / "bench"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TARGETS = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian")


class UnavailableError(Exception):
    """The program cannot be had on this machine."""


@dataclass(frozen=True)
class Release:
    """A release of Debian."""

    codename: str
    name: str


BOOKWORM = Release("bookworm", "Debian 12")
TRIXIE = Release("trixie", "Debian 13")


def obtain(package: str, program: str, release: Release | None = None) -> Path:
    """The path of a program of a package, which is fetched if need be. Raises UnavailableError.

    Without a `release` it is the one that is installed, or that of the release that runs here.
    """
    if release is None and (found := shutil.which(program)):
        return Path(found)
    place = CACHE / release.codename if release else CACHE
    if not (place / package).exists():
        place.mkdir(parents=True, exist_ok=True)
        try:
            options = _apt_options(release, place / "apt") if release else []
            _run("apt-get", *options, "download", "-qq", package, cwd=place)
            (archive,) = place.glob(f"{package}_*.deb")
            _run("dpkg-deb", "-x", str(archive), str(place / package), cwd=place)
            archive.unlink()
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            said = getattr(error, "stderr", None) or error
            raise UnavailableError(f"{program}: its package cannot be fetched: {said}") from None
    for directory in ("usr/sbin", "usr/bin"):
        if (path := place / package / directory / program).exists():
            return path
    raise UnavailableError(f"{program}: not in the package {package}")


def _apt_options(release: Release, place: Path) -> list[str]:
    """Have apt know that release alone, in this directory. Raises OSError, SubprocessError."""
    for each in ("state/lists/partial", "cache/archives/partial"):
        (place / each).mkdir(parents=True, exist_ok=True)
    (place / "status").touch()
    sources = place / "sources.list"
    known = sources.exists()
    sources.write_text(f"deb [signed-by={KEYRING}] {_mirror()} {release.codename} main\n")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": place / "state",
        "Dir::State::status": place / "status",
        "Dir::Cache": place / "cache",
        "Acquire::Languages": "none",
        # Whom apt would fetch as may have no way into this directory.
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    if not known:
        try:
            _run("apt-get", *options, "update", "-q", cwd=place)
        except subprocess.SubprocessError:
            sources.unlink()
            raise
    return options


def _mirror() -> str:
    """Raises SubprocessError, ValueError."""
    lines = _run(*TARGETS, cwd=ROOT).splitlines()
    found = next((line for line in lines if "security" not in line), None)
    if found is None:
        raise ValueError("no mirror of Debian is among the sources of apt here")
    return found


def _run(*argv: str, cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


def version(argv: Sequence[str]) -> str:
    """What a program says of its version: the first word with a digit; empty where it says nothing."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    words = (done.stdout + done.stderr).split()
    return next((word.strip(",") for word in words if any(c.isdigit() for c in word)), "")
