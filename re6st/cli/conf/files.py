"""The files of an enrolled machine, and its registry: by re6stnet.conf, or else by their usual names."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from re6st.cli.conf.program import CA, CERT, CONF, KEY, SERVICE_DIRECTORY, ConfError
from re6st.cli.options import FILE_LIMIT
from re6st.client.files import Files
from re6st.view import pasted

OPTIONS = ("registry", "ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """A directory with the files of a node."""

    directory: Path
    files: Files
    urls: Sequence[str]
    """The URLs of the registries."""

    @property
    def registries(self) -> Sequence[str]:
        """At least one URL. Raises ConfError."""
        if not self.urls:
            raise ConfError(f"{self.directory / CONF} names no registry. Give --registry.")
        return self.urls


def find(directory: Path | None, registries: Sequence[str]) -> NodeFiles:
    """The files in a directory: by default the current one if it has some, else the service's. The `registries`, if
    there are any, are used instead of those in its options.

    Raises ConfError.
    """
    if directory is None:
        here = any(Path(name).exists() for name in (CONF, CERT, CA))
        directory = Path() if here else SERVICE_DIRECTORY
    said = read_options(directory / CONF)
    names = {"ca": CA, "cert": CERT, "key": KEY}
    files = Files(*(directory / said.get(option, [name])[-1] for option, name in names.items()))
    if not any(path.exists() for path in (files.ca, files.cert, files.key)):
        raise ConfError(f"there are no certificates in {directory}. Name their directory with --dir, or enrol first.")
    return NodeFiles(directory, files, registries or said.get("registry", []))


def read_options(path: Path) -> dict[str, list[str]]:
    """What an option file of re6stnet says about files and registries, each time that it does; empty if there is none.

    Raises ConfError.
    """
    try:
        with path.open("rb") as file:
            text = pasted.lines(pasted.text(file.read(FILE_LIMIT)))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfError(f"{path} is not in UTF-8") from None
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # re6stnet will report other lines
            match shlex.split(line):
                case [option, value] if option in OPTIONS:
                    found.setdefault(option, []).append(value)
    return found
