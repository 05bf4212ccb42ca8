"""Manual pages in the macros of man(7)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from manual.programs import OPTION_FILE, SEE_ALSO, Program, Table


def page(program: Program) -> str:
    """The manual page of a program."""
    return "\n".join(_lines(program)) + "\n"


def escape(text: str) -> str:
    """Text as it is, in troff: signs that mean something there, and dashes that can be copied to a shell."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def bold(text: str) -> str:
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{escape(text)}\\fR"


def _lines(program: Program) -> Iterator[str]:
    yield '.\\" Written by ./run manual.'
    yield f'.TH {program.name.upper()} {program.section} "" re6st "re6st manual"'
    yield ".SH NAME"
    yield f"{escape(program.name)} \\- {escape(program.summary)}"
    yield ".SH SYNOPSIS"
    word = [f"[{italic('COMMAND')}]"] if program.words else []
    file = f"{bold('@')}{italic('FILE')} | " if program.option_files else ""
    yield " ".join([bold(program.name), *word, f"[{file}{italic('OPTION')} ...]"])
    yield ".SH DESCRIPTION"
    for number, text in enumerate([*program.description, *([OPTION_FILE] if program.option_files else [])]):
        yield from ([".PP"] if number else [])
        yield escape(text)
    yield ".SH OPTIONS"
    yield from _options(program.parser, ".SS")
    if program.words:
        yield ".SH WORDS"
        for name, parser in program.words.items():
            yield f".SS {escape(name)}"
            yield escape(" ".join((parser.description or "").split()))
            yield from _options(parser, "")
    for title, table in (
        ("SIGNALS", program.signals),
        ("ENVIRONMENT", program.environment),
        ("FILES", program.files),
        ("EXIT STATUS", program.statuses),
        ("EXAMPLES", program.examples),
    ):
        yield from _table(title, table)
    yield ".SH SEE ALSO"
    others = [each for each in SEE_ALSO if not each.startswith(f"{program.name}(")]
    yield ", ".join(f"{bold(name)}({number}" for name, _, number in (each.partition("(") for each in others))


def _table(title: str, table: Table) -> Iterator[str]:
    yield from ([f".SH {title}"] if table else [])
    for name, what in table:
        yield from (".TP", bold(name), f"{escape(what[0].upper() + what[1:])}.")


def _options(parser: argparse.ArgumentParser, macro: str) -> Iterator[str]:
    """The options of a parser by groups, each with a heading where a macro for it is given."""
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if _is_shown(action)]
        if macro and actions and group.title not in ("options", "positional arguments"):
            yield f"{macro} {escape((group.title or '').capitalize())}"
        for action in actions:
            yield from (".TP", _invocation(action), escape(formatter._expand_help(action)))


def _is_shown(action: argparse.Action) -> bool:
    # Those of every program are told once, with the program itself.
    common = isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
    return action.help != argparse.SUPPRESS and not common and "--version" not in action.option_strings


def _invocation(action: argparse.Action) -> str:
    values = " ".join(italic(value) for value in values_of(action))
    if not action.option_strings:
        return values
    return ", ".join(" ".join(filter(None, (bold(name), values))) for name in action.option_strings)


def values_of(action: argparse.Action) -> list[str]:
    """The names of the values that an option takes."""
    if action.nargs == 0:
        return []
    if action.metavar is None:
        return ["|".join(map(str, action.choices or ())) or action.dest.upper()]
    return list(action.metavar) if isinstance(action.metavar, tuple) else [action.metavar]
