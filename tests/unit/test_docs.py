"""The documentation: it builds without a broken link, and says what is so (docs/, mkdocs.yml)."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from manual import drawings
from manual.programs import programs
from re6st.cli.conf import main as conf
from re6st.cli.node import main as node
from re6st.cli.options import OptionParser
from re6st.cli.registry import main as registry
from re6st.cli.status import main as status
from testbed.guide import Command, commands, pages
from tests.unit.service.test_units import DAEMON, UNITS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MAINS = {"re6stnet": node.main, "re6st-conf": conf.main, "re6st-registry": registry.main, "re6st-status": status.main}
SYSTEM = {
    *("adduser", "apt", "cd", "cp", "curl", "echo", "git", "ip", "journalctl", "modprobe", "mptcpize"),
    *("mv", "openssl", "ping", "pip", "printf", "rm", "socat", "ss", "ssh", "systemctl"),
}
"""Programs of other packages that commands in the documentation use; every other one is a mistake."""
UNIT_WORDS = {"enable", "disable", "start", "stop", "restart", "reload", "status", "is-active"}

PAGES = [*pages(DOCS), ROOT / "README.md"]
COMMANDS = [command for page in PAGES for command in commands(page)]
INDENTED = re.compile(r"^    (?:\$ )?((?:re6stnet|re6st-[a-z]+|\./run) [^|>\n]*)", re.M)
"""Commands of ours in blocks of the other form, as far as a pipe."""


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--registry URL" in (tmp_path / "site/reference/re6stnet.html").read_text()
    for path in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"'](?:https?:)?//[^\"']*", path.read_text())
        assert loaded == [], f"{path.name} loads something from another host"


def test_links_in_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert len(targets) > 10
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_a_drawing_is_up_to_date(name: str) -> None:
    kept = (drawings.DIRECTORY / f"{name}.svg").read_text()
    assert kept == drawings.DRAWINGS[name]().svg(), "./run manual draws it anew"


def test_the_picture_of_the_house_has_each_room() -> None:
    """A new room, in the floors of pyproject.toml, gets its box in manual/drawings.py."""
    assert set(drawings.ROOMS) == {room for floor in drawings.layers() for room in floor}


STEP = re.compile(r"`([A-Za-z_]+(?:\.\w+)?)`\s+(?:\(|in\s+)`([\w/]+\.py)`")
"""A name, and the module that has it, in a walk through the source."""
DEFINITION = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def test_the_walks_through_the_source_name_what_exists() -> None:
    steps = STEP.findall((DOCS / "how-it-works.md").read_text())
    assert len(steps) > 20
    for name, module in steps:
        tree = ast.parse((ROOT / "re6st" / module).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, DEFINITION)}
        assert set(name.split(".")) <= defined, f"re6st/{module} has no {name}: docs/how-it-works.md says it does"


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}:{command.line}")
def test_a_command_is_one(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command.text)
    program = words[0]
    if program in MAINS:
        check_ours(program, words[1:], tmp_path, monkeypatch)
    elif program == "./run":
        assert words[1] in run_words()
    else:
        assert program in SYSTEM
        if program == "systemctl":
            check_unit(words[1:])


def test_commands_of_ours_in_indented_blocks(tmp_path: Path) -> None:
    found = [(page, text) for page in PAGES for text in INDENTED.findall(page.read_text()) if "..." not in text]
    assert len(found) > 10
    for page, text in found:
        program, *arguments = shlex.split(text, comments=True)
        with pytest.MonkeyPatch.context() as patch:
            if program == "./run":
                assert arguments[0] in run_words(), f"{page.name}: {text}"
            else:
                check_ours(program, arguments, tmp_path, patch)


# --- many machines at once: what Ansible and cloud-init are given ---

EXAMPLES = [text for page in PAGES for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S)]
TOLD = {
    "inventory_hostname": "node1",
    "(invitation.stdout | from_json).url": "http://registry.example.com/",
    "(invitation.stdout | from_json).fingerprint": "sha256:" + "3f9a" * 16,
    "(invitation.stdout | from_json).token": "qwertzuiopasdfghjk",
}
"""What templates stand for; the last three are those of `re6st-registry invite --json`."""
TASK_WORDS = {"name", "register", "when", "no_log", "delegate_to", "changed_when"}
APT = {"apt-get"}


def test_examples_for_many_machines_run_commands_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play, cloud = EXAMPLES
    (found,) = yaml.safe_load(play)
    registered: set[str] = set()
    commands = []
    for task in found["tasks"]:
        (module,) = (word for word in task if word not in TASK_WORDS)
        assert module.startswith("ansible.builtin.")
        assert set(re.findall(r"(?<!\.)\b(\w+)\.(?:stat|stdout)\b", str(task))) <= registered
        registered.add(task.get("register", ""))
        if module == "ansible.builtin.command":
            given = task[module]
            commands.append(shlex.split(given) if isinstance(given, str) else given["argv"])
        elif module == "ansible.builtin.systemd":
            assert task[module]["name"] in UNITS
        assert ("token" in str(task)) <= bool(task.get("no_log")), "tokens are in nobody's log"
    assert cloud.startswith("#cloud-config\n")
    commands += map(shlex.split, yaml.safe_load(cloud)["runcmd"])
    assert len(commands) == 6
    for words in commands:
        program, *arguments = (re.sub(r"\{\{ (.*?) \}\}", lambda found: TOLD[found[1]], word) for word in words)
        if program in MAINS:
            with monkeypatch.context() as patch:
                check_ours(program, arguments, tmp_path, patch)
        elif program == "systemctl":
            check_unit(arguments)
        else:
            assert program in SYSTEM | APT


def run_words() -> set[str]:
    return set(re.findall(r"^    ([a-z]+)\)$", (ROOT / "run").read_text(), re.M))


class Parsed(Exception):
    """The command line was read, and found good."""


def check_ours(program: str, arguments: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a command line by its own parser, in a directory with the option files that it may name."""
    (directory / "re6stnet.conf").write_text("registry http://r/\nca ca.crt\ncert cert.crt\nkey cert.key\n")
    (directory / "re6st-registry.conf").write_text("ca ca.crt\nkey ca.key\ndh dh.pem\n")
    monkeypatch.chdir(directory)
    real = OptionParser.parse_args

    def parse(self: OptionParser, *args: Any, **kwargs: Any) -> NoReturn:
        real(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(OptionParser, "parse_args", parse)
    with pytest.raises(Parsed):
        MAINS[program](arguments)


def check_unit(words: list[str]) -> None:
    word, *rest = words
    assert word in UNIT_WORDS
    units = [each for each in rest if not each.startswith("-")]
    assert units
    assert set(units) <= set(UNITS)
    if word == "reload":
        assert all("ExecReload=" in (DAEMON / f"{unit}.service").read_text() for unit in units)


def test_command_lines_in_tables_and_text_name_what_exists() -> None:
    """`re6st-registry WORD`, `re6st-conf WORD`, `re6st-status WORD` and `./run WORD` in running text."""
    known = {program.name: set(program.words) for program in programs()} | {"./run": run_words()}
    for page in PAGES:
        for program, word in re.findall(r"`(re6st-(?:registry|conf|status)|\./run) ([a-z][a-z-]*)", page.read_text()):
            assert word in known[program], f"{page.name}: {program} {word}"


def test_options_named_in_the_guide_exist() -> None:
    known = {"--purge", "--name"} | {option for parser in parsers() for option in parser._option_string_actions}
    for page in PAGES:
        for option in re.findall(r"`(--[a-z][a-z-]+)", page.read_text()):
            assert option in known | OF_OTHERS, f"{page.name}: {option}"


OF_OTHERS = {"--management", "--tun-mtu", "--link-mtu", "--ping-exit", "--crl-verify", "--mark"}


def parsers() -> Iterator[argparse.ArgumentParser]:
    for program in programs():
        yield program.parser
        yield from program.words.values()


def test_errors_in_troubleshooting_are_those_of_the_code() -> None:
    said = "\n".join(literals())
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", (DOCS / "troubleshooting.md").read_text(), re.M)
    assert len(rows) > 30
    for row in rows:
        for error in re.findall(r"`([^`]+)`", row):
            for part in re.split(r"\.\.\.|: |503", error):
                text = part.strip(" ,()?")
                if text and error not in ("topology", "versions"):
                    assert text in said, f"{error!r}: nobody says {text!r}"


def literals() -> Iterator[str]:
    """All texts in the package, those that stand one after the other joined."""
    for path in (ROOT / "re6st").rglob("*.py"):
        for each in ast.walk(ast.parse(path.read_text())):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value
            elif isinstance(each, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in each.values)  # type: ignore[misc]


def test_programs_of_the_system_are_there() -> None:
    """Those that the guide's commands need on a machine that runs them in tests."""
    assert all(shutil.which(name) for name in ("openssl", "ping", "systemctl", "journalctl"))


def test_the_example_of_a_firewall_is_one_that_nft_takes_twice(tmp_path: Path) -> None:
    rules = re.findall(r"^```\n(# /etc/nftables.*?)^```$", (DOCS / "network.md").read_text(), re.M | re.S)
    assert len(rules) == 1
    in_a_network_of_its_own = ["unshare", "--map-root-user", "--net", "sh", "-c"]
    if subprocess.run([*in_a_network_of_its_own, "nft list ruleset"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces for this user, or no nft")
    (tmp_path / "rules").write_text(rules[0])
    loaded = subprocess.run(
        [*in_a_network_of_its_own, 'nft -f "$0" && nft -f "$0"', str(tmp_path / "rules")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (loaded.returncode, loaded.stderr) == (0, "")
