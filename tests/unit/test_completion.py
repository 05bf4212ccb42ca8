"""Completion as an operator meets it: lines typed into a real bash and a real zsh, on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARE = Path(__file__).parents[2] / "share"
PATIENCE = 20
"""Seconds; usual: 0.1."""
ALL = "\x18\x01"
"""The keys that put in all that could follow."""

SETUP = {
    "bash": """\
for each in {share}/bash-completion/completions/*; do . $each; done
bind 'set enable-bracketed-paste off'; bind '"\\C-x\\C-a": insert-completions'
""",
    "zsh": """\
fpath=({share}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D
zstyle ':completion:all:*' completer _all_matches _complete; zstyle ':completion:all:*' insert true
zle -C all complete-word _generic; bindkey '^X^A' all
""",
}
COMMANDS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


class Shell:
    """An interactive shell that knows our commands. End it with `close`."""

    def __init__(self, name: str, directory: Path) -> None:
        self._seen = ""
        environment = {
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
            "HOME": str(directory),
            "PS1": "$ ",
            "COLUMNS": "500",
        }
        self._terminal, its_side = pty.openpty()
        self._process = subprocess.Popen(
            COMMANDS[name],
            stdin=its_side,
            stdout=its_side,
            stderr=its_side,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        os.close(its_side)
        for line in SETUP[name].format(share=SHARE).splitlines():
            self._type(f"{line}\n")
        self._type("echo READY $((20 + 22))\n")
        self._wait(r"READY 42")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _wait(self, pattern: str) -> re.Match[str]:
        """What the shell prints, up to what is waited for."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self._seen)):
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self._seen
            self._seen += os.read(self._terminal, 4096).decode(errors="replace")
        self._seen = self._seen[found.end() :]
        return found

    def completed(self, line: str, key: str = "\t") -> list[str]:
        """The words of a line after a key; the line is not carried out."""
        self._type(f"{line}{key}")
        self._type("\x01echo RESULT \x05 ;\n")  # to its begin, and to its end
        return self._wait(r"\nRESULT (.*?) ?\r")[1].split()


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param}")
    directory = tmp_path_factory.mktemp("place")
    (directory / "etc").mkdir()
    for name in ("ca.crt", "re6stnet.conf", "registry.db"):
        (directory / name).touch()
    made = Shell(request.param, directory)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("re6st-status tr", "re6st-status trace"),
        ("re6st-status wait --fo", "re6st-status wait --for"),
        ("re6st-status wait --for reg", "re6st-status wait --for registry"),
        ("re6st-registry inv", "re6st-registry invite"),
        ("re6st-registry invite --exp", "re6st-registry invite --expires"),
        ("re6st-registry --db reg", "re6st-registry --db registry.db"),
        ("re6st-conf --fin", "re6st-conf --fingerprint"),
        ("re6st-conf -d e", "re6st-conf -d etc"),
        ("re6stnet --neigh", "re6stnet --neighbour"),
        ("re6stnet --ca c", "re6stnet --ca ca.crt"),
        ("re6stnet --ca=c", "re6stnet --ca=ca.crt"),
        ("re6stnet --ca=", "re6stnet --ca="),
        ("re6stnet --disable-proto=u", "re6stnet --disable-proto=udp"),
        ("re6stnet @re6", "re6stnet @re6stnet.conf"),
        ("re6stnet -i l", "re6stnet -i lo"),
        ("re6stnet --disable-proto u", "re6stnet --disable-proto udp"),
        ("re6stnet --country D", "re6stnet --country D"),
    ],
)
def test_a_tab_completes(shell: Shell, line: str, expected: str) -> None:
    assert " ".join(word.removesuffix("/") for word in shell.completed(line)) == expected


def test_all_that_may_follow(shell: Shell) -> None:
    words = shell.completed("re6st-status ", ALL)
    assert {"tunnels", "why", "wait", "check"} <= set(words)
    assert {"nodes", "tokens", "revoke"} <= set(shell.completed("re6st-registry ", ALL))
    assert "@re6stnet.conf" in shell.completed("re6stnet @", ALL)
    assert {"--ca=ca.crt", "--ca=registry.db"} & set(shell.completed("re6stnet --ca=", ALL))
    assert shell.completed("re6stnet --disable-proto tc", ALL)[2:] == ["tcp", "tcp6"]
