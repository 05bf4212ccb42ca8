"""A registry and its operator at a terminal, for tests of the commands of re6st-registry."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st.cli.registry import main as registry
from re6st.registryd.sqlite.store import Store
from tests.unit.cli.registry.test_cli_registry import Process

EMAILS = (None, "alice@example.org", "bob@example.org")


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self
        answer = json.loads(self.out)
        assert answer["schema"] == 1
        return answer


@dataclass
class Place:
    """A registry's directory, with three nodes, and maybe a registry that runs."""

    directory: Path
    capsys: pytest.CaptureFixture[str]
    process: Process | None = None

    def word(self, *arguments: str) -> Outcome:
        self.capsys.readouterr()
        command = [*arguments, f"@{self.directory}/re6st-registry.conf"]
        try:
            status: int | str | None = registry.main(command)
        except SystemExit as stop:
            status = stop.code
        assert isinstance(status, int)
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(status, captured.out, captured.err)

    def refused(self, status: int, *arguments: str) -> str:
        """The one line of a word that fails."""
        outcome = self.word(*arguments)
        assert (outcome.status, outcome.out) == (status, ""), outcome
        *_, line = outcome.err.splitlines()
        assert line.startswith(f"re6st-registry {arguments[0]}: "), line
        return line

    @property
    def trust(self) -> cert.Trust:
        return cert.Trust(cert.load_pem((self.directory / "ca.crt").read_bytes()))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def damage(store: Store) -> None:
    await store.change(lambda ledger: ledger.set_config("serial", 1))
