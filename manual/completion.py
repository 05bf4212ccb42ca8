"""Completion of command lines, for bash and zsh."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from manual.programs import Program
from manual.roff import values_of

FILES = {"FILE", "CMD", "SOCK"}
DIRECTORIES = {"DIR"}
INTERFACES = {"IF"}


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options that are offered."""
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            yield action


def _function(program: Program) -> str:
    return "_" + program.name.replace("-", "_")


# --- bash ---

_BASH = """\
# bash completion for {name}. Written by ./run manual.

{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} word=
    COMPREPLY=()
    # Lines are split at = too; and at @, but what takes the place of a word begins with it.
    case $prev,$cur in
        *,=) cur= ;;
        =,*) prev=${{COMP_WORDS[COMP_CWORD-2]}} ;;
        @,*) cur=@$cur ;;
    esac
{word}    case $word,$prev in
{values}    esac
    if [[ $cur == @* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -P @ -- "${{cur#@}}")
        return
    fi
    local offered=
    case $word in
{offered}    esac
    mapfile -t COMPREPLY < <(compgen -W "$offered" -- "$cur")
}}

complete -F {function} {name}
"""
_FIND_WORD = """\
    case ${{COMP_WORDS[1]}} in
        {names}) [ "$COMP_CWORD" -lt 2 ] || word=${{COMP_WORDS[1]}} ;;
    esac
"""


def bash(program: Program) -> str:
    """The file for /usr/share/bash-completion/completions."""
    parsers = {"": program.parser, **program.words}
    offered = []
    for word, parser in parsers.items():
        names = [name for action in _options(parser) for name in action.option_strings]
        names += [] if word else sorted(program.words)
        offered.append(f'        {word or chr(34) * 2}) offered="{" ".join(names)}" ;;\n')
    values = [line for word, parser in parsers.items() for line in _bash_values(word, parser)]
    return _BASH.format(
        name=program.name,
        function=_function(program),
        word=_FIND_WORD.format(names="|".join(program.words)) if program.words else "",
        values="".join(values),
        offered="".join(offered),
    )


def _bash_values(word: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """A case for each option that takes a value."""
    for action in _options(parser):
        if not (values := values_of(action)):
            continue
        if action.choices is not None:
            reply = f"""compgen -W "{" ".join(map(str, action.choices))}" -- "$cur\""""
        elif values[0] in FILES:
            reply = 'compopt -o filenames 2>/dev/null; compgen -f -- "$cur"'
        elif values[0] in DIRECTORIES:
            reply = 'compopt -o filenames 2>/dev/null; compgen -d -- "$cur"'
        elif values[0] in INTERFACES:
            reply = 'compgen -W "$(ls /sys/class/net)" -- "$cur"'
        else:
            reply = ""
        names = "|".join(f"{word},{name}" for name in action.option_strings)
        option, _, generate = reply.rpartition("; ")
        lines = [option] if option else []
        lines += [f"mapfile -t COMPREPLY < <({generate})"] if generate else []
        yield f"        {names})\n" + "".join(f"            {line}\n" for line in [*lines, "return", ";;"])


# --- zsh ---


def zsh(program: Program) -> str:
    """The file for a directory of $fpath."""
    lines = [f"#compdef {program.name}", "# Written by ./run manual.", ""]
    if not program.words:
        lines += ["_arguments -s \\", *_zsh_options(program.parser), "    '*:option file:_files -P @'"]
        return "\n".join(lines) + "\n"
    lines += ["local -a words_of_it", "words_of_it=("]
    for name, parser in program.words.items():
        what = " ".join((parser.description or "").split()).removesuffix(".")
        lines.append(f"    {_quoted(f'{name}:{what}')}")
    lines += [")", "", "local context state state_descr line", "_arguments -s -C \\", *_zsh_options(program.parser)]
    lines += ["    '1: :->word' '*:: :->rest'", "", "case $state in"]
    lines += ["    word) _describe -t words word words_of_it ;;", "    rest)", "        case $line[1] in"]
    for name, parser in program.words.items():
        lines += [f"            {name}) _arguments -s \\", *_zsh_options(parser), "                '*:value:_files' ;;"]
    lines += ["        esac ;;", "esac"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in _options(parser):
        what = re.sub(r"([\[\]\\:])", r"\\\1", formatter._expand_help(action))
        values = "".join(f":{value.replace(':', ' ')}:{_zsh_action(action, value)}" for value in values_of(action))
        for name in action.option_strings:
            repeated = "*" if isinstance(action, argparse._AppendAction) else ""
            # After a space or not: --name VALUE and --name=VALUE, -n VALUE and -nVALUE.
            joined = ("=" if name.startswith("--") else "+") if values else ""
            yield f"    {_quoted(f'{repeated}{name}{joined}[{what}]{values}')} \\"


def _zsh_action(action: argparse.Action, value: str) -> str:
    if action.choices is not None:
        return f"({' '.join(map(str, action.choices))})"
    if value in FILES | DIRECTORIES:
        return "_files -/" if value in DIRECTORIES else "_files"
    return "_net_interfaces" if value in INTERFACES else ""
