"""The commands of the documentation: read from its pages, and run as a reader would.

A command is a line of a block marked `console` that begins with a prompt: `registry$`, `node$`, or `$` where it does
not matter. The other lines of such a block are what is printed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.machine import Machine
from testbed.namespace import BedError

DOCS = Path(__file__).resolve().parent.parent / "docs"
NAME = "registry.example.com"
URL = f"http://{NAME}/"
HOME = "/root"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
_HEADING = re.compile(r"^##? (.+)$", re.M)
_COMMAND = re.compile(r"(\w*)\$ (.+)")
_JOIN = re.compile(r"^re6st-conf join '[^']*'")


@dataclass(frozen=True, slots=True)
class Command:
    page: str
    section: str
    """The heading that it stands under."""
    line: int
    machine: str
    """What the prompt says; may be empty."""
    text: str


def pages(directory: Path = DOCS) -> list[Path]:
    """All pages, in order of their names."""
    return sorted(directory.rglob("*.md"))


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page, in order."""
    text = page.read_text()
    for block in _BLOCK.finditer(text):
        section = _HEADING.findall(text, 0, block.start())[-1]
        first = text.count("\n", 0, block.start(1)) + 1
        for number, line in enumerate(block[1].splitlines(), first):
            if match := _COMMAND.fullmatch(line):
                yield Command(page.stem, section, number, match[1], match[2])


class Reader:
    """Types the commands of a page on machines, by the names in the prompts, into a new shell on each.

    What differs from the page is what a reader would put in its place: an invitation, the address of the registry's
    machine.
    """

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self.machines = machines
        for machine in machines.values():
            machine.path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{self._registry.host.address} {NAME}\n")
            machine.path("/etc/apt/apt.conf.d/99guide").write_text('APT::Get::Assume-Yes "true";\n')

    @property
    def _registry(self) -> Machine:
        return self.machines["registry"]

    def read(self, page: str, section: str | None = None) -> str:
        """Carry out the commands of a page, or of a section; what they print. Raises BedError where one fails."""
        found = [each for each in commands(DOCS / f"{page}.md") if section in (None, each.section) and each.machine]
        if not found:
            raise BedError(f"{page}: no commands below {section!r}")
        where = dict.fromkeys(self.machines, HOME)
        return "".join(self._type(command, where) for command in found)

    def _type(self, command: Command, where: dict[str, str]) -> str:
        name, text = command.machine, command.text
        if _JOIN.match(text):
            text = _JOIN.sub(lambda _: self.invitation(), text)
        try:
            printed = self.machines[name].run("sh", "-ec", f"cd {shlex.quote(where[name])}; {text}")
        except BedError as error:
            raise BedError(f"{command.page}.md:{command.line}: {command.machine}$ {text}\n{error}") from None
        if text.startswith("cd "):
            where[name] = shlex.split(text)[1]
        return printed

    def tails(self) -> str:
        """What the services of all machines said last."""
        units = ("re6stnet", "re6st-registry")
        return "\n".join(
            f"--- {name}: {unit}\n{machine.journal(unit)[-2000:]}"
            for name, machine in self.machines.items()
            for unit in units
        )

    def invitation(self) -> str:
        """The command line that lets one machine more in."""
        printed = self._registry.run("re6st-registry", "invite", "somebody@example.com", "--url", URL)
        join = re.search(r"^(re6st-conf join .+)$", printed, re.M)
        if not join:
            raise BedError(printed)
        return join[1]
