"""The rules of the house that the layout must keep: a pure core, and nothing received that is ever evaluated."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "re6st"
MODULES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN_IN_CORE = {
    *("asyncio", "concurrent", "multiprocessing", "selectors", "signal", "socket", "ssl", "subprocess", "threading"),
    *("sqlite3", "time", "random", "secrets", "os", "io", "pathlib", "shutil", "sys", "tempfile", "logging"),
    *("aiohttp", "pyroute2", "netifaces", "miniupnpc", "OpenSSL", "cryptography"),
}

SHELL_ALLOWED = {"linux/process.py"}
"""Where the administrator's own hooks, --up and --daemon, may be run by the shell (wire.md 10.8)."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(), str(path)) for path in MODULES}


def imports(module: str) -> Iterator[str]:
    """Full names of what a module imports, anywhere in it."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            base = node.module or ""
            if (base, [alias.name for alias in node.names]) == ("random", ["Random"]):
                continue  # the type of a source of chance that is handed in; nobody here makes one, see below
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def reached(module: str) -> dict[str, str]:
    """Every module of the package that `module` imports, also through others, with the way there."""
    found, pending = {module: module}, [module]
    while pending:
        current = pending.pop()
        parents = [current.rpartition(".")[0]] if "." in current else []
        for name in [*imports(current), *parents]:
            if name in TREES and name not in found:
                found[name] = f"{found[current]} -> {name}"
                pending.append(name)
    return found


FLOORS = (
    ("core.older_options", "core.prefix", "core.words"),
    ("core.limits", "core.routing"),
    ("core.machine",),
    ("core.wire",),
    ("core.mesh", "core.registry", "core.transport"),
    ("core.telemetry",),
    ("keys", "view"),
    ("linux",),
    ("cert", "service"),
    ("babeld", "client", "transport"),
    ("babel", "registryd", "tunnel"),
    ("migration", "noded", "registry"),
    ("api", "cli", "node"),
    ("cli.conf", "cli.node", "web"),
    ("cli.registry", "cli.status"),
)
"""The rooms of the package, from the ground up: each imports what is below it, never what is beside or above it."""

FLOOR = {f"re6st.{room}": number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    """The innermost room that a module belongs to; a package of several has none of its own."""
    while module not in FLOOR:
        module = module.rpartition(".")[0]
    return module


CORE = sorted(name for name in TREES if name == "re6st.core" or name.startswith("re6st.core."))


PURE = [*CORE, *sorted(name for name in TREES if name.startswith("re6st.view"))]
"""Text for people is made without IO too."""


def test_there_is_a_core() -> None:
    assert len(CORE) > 8


@pytest.mark.parametrize("module", PURE)
def test_logic_has_no_io_no_clock_and_no_chance(module: str) -> None:
    for name, way in reached(module).items():
        outside = {imported.partition(".")[0] for imported in imports(name)} & FORBIDDEN_IN_CORE
        assert not outside, f"{way} imports {', '.join(sorted(outside))}"


@pytest.mark.parametrize("module", CORE)
def test_the_core_is_handed_its_chance(module: str) -> None:
    made = [call.lineno for function, call in calls(TREES[module]) if function.rpartition(".")[2] == "Random"]
    assert made == []


@pytest.mark.parametrize("module", CORE)
def test_the_core_stays_on_its_floor(module: str) -> None:
    above = [way for name, way in reached(module).items() if name != "re6st" and not name.startswith("re6st.core")]
    assert above == []


@pytest.mark.parametrize("module", sorted(TREES.keys() - {"re6st", "re6st.core"}))
def test_a_room_imports_only_what_is_below_it(module: str) -> None:
    room = room_of(module)
    for name in imports(module):
        if name in TREES and name not in ("re6st", "re6st.core") and room_of(name) != room:
            assert FLOOR[room_of(name)] < FLOOR[room], f"{module} imports {name}, which is not below it"


def test_the_walk_sees_an_indirect_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TREES, "re6st.core.a", ast.parse("def f():\n    from re6st.core import b"))
    monkeypatch.setitem(TREES, "re6st.core.b", ast.parse("import os.path"))
    assert "re6st.core.b" in reached("re6st.core.a")
    with pytest.raises(AssertionError, match=r"re6st.core.a -> re6st.core.b imports os"):
        test_logic_has_no_io_no_clock_and_no_chance("re6st.core.a")


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_nothing_is_evaluated(path: Path) -> None:
    evaluating = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"}
    for function, call in calls(TREES[name_of(path)]):
        where = f"{path.name}:{call.lineno}: {function}"
        assert function not in evaluating, where
        if path.name in SHELL_ALLOWED:
            continue
        assert not function.endswith("create_subprocess_shell"), where
        for keyword in call.keywords:
            shell = keyword.arg == "shell" and getattr(keyword.value, "value", None) is not False
            assert not shell, where
    modules = {imported.partition(".")[0] for imported in imports(name_of(path))}
    assert not modules & {"pickle", "marshal", "shelve", "dill", "yaml"}


def test_public_keys_are_compared_by_what_they_are() -> None:
    """Objects of one key are not equal in cryptography before 40, which Debian 12 has: pki.same_key compares them."""

    def is_key(node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"public_key", "key_of_cert"}

    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                assert not any(map(is_key, (node.left, *node.comparators))), f"{name}:{node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_modules_are_of_a_size_to_be_read(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 560
    tree = TREES[name_of(path)]
    assert ast.get_docstring(tree), "every module says what it is"


def test_a_node_imports_no_more_than_it_needs() -> None:
    """Each of these is megabytes of every node's memory, and a good part of its start."""
    program = "import sys, re6st.cli.node.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"aiohttp", "maxminddb", "multiprocessing", "platform", "pyroute2", "rich", "shutil"}
    heavy |= {"statistics", "urllib3", "yarl"}
    assert not heavy & set(done.stdout.split())


def test_no_two_tests_have_one_name() -> None:
    """pytest imports them by name, so the second one of a name ends the run."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
