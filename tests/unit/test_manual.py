"""Help, manual pages and completion of commands: complete, readable, and what the programs really take."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from manual.__main__ import SHARE, files
from manual.programs import Program, programs

PROGRAMS = {program.name: program for program in programs()}
PARSERS = {program.name: program.parser for program in PROGRAMS.values()} | {
    f"{program.name} {word}": parser for program in PROGRAMS.values() for word, parser in program.words.items()
}


def test_every_command_has_a_manual() -> None:
    project = tomllib.loads((SHARE.parent / "pyproject.toml").read_text())["project"]
    assert set(project["scripts"]) == set(PROGRAMS)


def test_what_is_kept_is_up_to_date() -> None:
    kept = {str(path.relative_to(SHARE)): path.read_text() for path in SHARE.rglob("*") if path.is_file()}
    made = files()
    assert set(kept) == set(made)
    for name, text in made.items():
        assert kept[name] == text, f"share/{name} is out of date: ./run manual writes it anew"


@pytest.mark.parametrize("name", PARSERS)
def test_help_is_complete_and_fits_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = PARSERS[name].format_help()
    assert [line for line in text.splitlines() if len(line) > 80] == []
    nameless = [
        action.option_strings or action.dest
        for action in PARSERS[name]._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert nameless == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_has_an_example_and_many_options_are_in_groups(name: str) -> None:
    parser = PROGRAMS[name].parser
    assert name in (parser.epilog or "")
    plain = [action for action in parser._optionals._group_actions if action.help != argparse.SUPPRESS]
    assert len(plain) <= 6, "a list this long needs groups"


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_manual_page_has_every_option_and_no_fault(name: str) -> None:
    program = PROGRAMS[name]
    path = SHARE / f"man/man{program.section}/{name}.{program.section}"
    text = path.read_text()
    for parser in (program.parser, *program.words.values()):
        for action in parser._actions:
            if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
                for option in action.option_strings[:1]:
                    assert option in ("-V",) or f"\\fB{option}".replace("-", "\\-") in text
    if not shutil.which("mandoc"):
        pytest.skip("no mandoc")
    faults = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True).stdout
    assert [line for line in faults.splitlines() if "missing date" not in line] == []


def complete(program: Program, *words: str) -> set[str]:
    """What bash offers for the last word."""
    script = SHARE / "bash-completion/completions" / program.name
    function = "_" + program.name.replace("-", "_")
    code = f'. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    run = subprocess.run(
        ["bash", "-c", code, script, program.name, *words], capture_output=True, text=True, check=True, cwd=SHARE
    )
    assert run.stderr == ""
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("re6stnet", "--disable-proto", "tc"), {"tcp", "tcp6"}),
        (("re6stnet", "--neigh"), {"--neighbour"}),
        (("re6stnet", "--ca", "ma"), {"man"}),
        (("re6stnet", "@ma"), {"@man"}),
        (("re6stnet", "-i", "lo"), {"lo"}),
        (("re6stnet", "--country", ""), set()),
        (("re6st-conf", "--fin"), {"--fingerprint"}),
        (("re6st-registry", "inv"), {"invite"}),
        (("re6st-registry", "invite", "--exp"), {"--expires"}),
        (("re6st-registry", "--enc"), {"--encrypt"}),
        (("re6st-status", "tr"), {"trace"}),
        (("re6st-status", "wait", "--for", "p"), {"peer"}),
    ],
)
def test_bash_completes(words: tuple[str, ...], some: set[str]) -> None:
    assert complete(PROGRAMS[words[0]], *words[1:]) == some


@pytest.mark.parametrize("path", sorted((SHARE / "zsh/site-functions").iterdir()), ids=lambda path: str(path.name))
def test_zsh_reads_its_completion(path: Path) -> None:
    if not shutil.which("zsh"):
        return  # one reader of what bash is shown to complete, not worth its installation
    assert subprocess.run(["zsh", "-n", path], capture_output=True, text=True).stderr == ""
