"""`python -m manual`: write everything anew, below share/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from manual.completion import bash, zsh
from manual.programs import programs
from manual.roff import page

SHARE = Path(__file__).resolve().parents[1] / "share"


def files() -> Mapping[str, str]:
    """What is to be in share/: names and contents."""
    made = {}
    for program in programs():
        made[f"man/man{program.section}/{program.name}.{program.section}"] = page(program)
        made[f"bash-completion/completions/{program.name}"] = bash(program)
        made[f"zsh/site-functions/_{program.name}"] = zsh(program)
    return made


def main() -> None:
    for name, text in files().items():
        path = SHARE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
