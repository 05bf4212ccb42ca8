"""The rules of the house: floors, a pure core, and nothing received that is ever evaluated."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "re6st"
MODULES = sorted(PACKAGE.rglob("*.py"))

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
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


CORE = sorted(name for name in TREES if name.startswith("re6st.core."))


def test_imports_keep_to_the_floors() -> None:
    """Which room may import which, that logic does no IO, and that there is no circle: contracts in pyproject.toml."""
    assert find_spec("importlinter"), "import-linter is not installed: .venv/bin/python -m pip install -e '.[test]'"
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", CORE)
def test_the_core_is_handed_its_chance(module: str) -> None:
    """Of the random module it may name the type of what it is handed, and no more: import-linter sees whole modules."""
    named = [name for name in imports(module) if name.partition(".")[0] == "random"]
    assert named in ([], ["random", "random.Random"])
    made = [call.lineno for function, call in calls(TREES[module]) if function.rpartition(".")[2] == "Random"]
    assert made == []


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
    heavy = {"aiohttp", "maxminddb", "multiprocessing", "platform", "pyroute2", "shutil"}
    heavy |= {"statistics", "urllib3", "yarl"}
    assert not heavy & set(done.stdout.split())


def test_no_two_tests_have_one_name() -> None:
    """pytest imports them by name, so the second one of a name ends the run."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


SAME_NAME = frozenset({"RegistryClient"})
"""May be twice: SlapOS imports that of client/blocking.py by this name, which the older software gave it."""


def test_no_two_classes_have_one_name() -> None:
    """Of two things with one name, a reader takes the one for the other. What is inside a class or function may be."""
    found: dict[str, list[str]] = {}
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(module)
    twice = {name: modules for name, modules in found.items() if len(modules) > 1}
    assert {name: modules for name, modules in twice.items() if name not in SAME_NAME} == {}
    assert set(twice) == SAME_NAME, "what is not twice any more is no exception"
