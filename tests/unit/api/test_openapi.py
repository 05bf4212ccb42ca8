"""The registry's description of itself, and what happens when a fuzzer takes it at its word."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st import cert
from re6st.api import openapi
from re6st.core.wire.rpc import METHODS
from tests.unit.registry_world import A, World

EXAMPLES = 40
"""For each method; more find more, and take longer."""
CONFIG = """\
# 501 is what other verbs than GET get (wire.md 3.1).
[checks]
not_a_server_error.expected-statuses = ["2xx", "4xx", "501"]
"""


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def test_every_method_is_described_with_its_parameters() -> None:
    paths = openapi.document()["paths"]
    assert set(paths) == {f"/{name}" for name in METHODS}
    for name, method in METHODS.items():
        parameters = {each["name"]: each["required"] for each in paths[f"/{name}"]["get"]["parameters"]}
        assert parameters == dict(method.parameters)
    assert openapi.PATH[1:] not in METHODS
    used = {name for method in METHODS.values() for name in method.parameters}
    assert (set(openapi.SUMMARIES), set(openapi.PARAMETERS)) == (set(METHODS), used), "nothing is left of old ones"


def test_everybody_may_read_it(world: World) -> None:
    async def test(world: World) -> None:
        answer = await world.get(openapi.PATH, X_Forwarded_For="198.51.100.1")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert json.loads(answer.body) == openapi.document()
        assert (await world.get(f"{openapi.PATH}/x")).status == 400

    world.run(test)


def test_a_fuzzer_finds_no_server_error(world: World, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        for _ in range(3):
            await world.enrol()
        document = _with_examples({"req": world.request(), "token": "", "cn_or_serial": "2"})
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        program = (
            "-c",
            "from schemathesis.cli import schemathesis; schemathesis()",
            "--config-file",
            "schemathesis.toml",
        )
        options = {
            "--url": f"http://127.0.0.1:{world.port}",
            "--checks": "not_a_server_error,status_code_conformance,content_type_conformance",
            "--phases": "examples,coverage,fuzzing",
            "--max-examples": str(EXAMPLES),
            "--generation-database": "none",
            "--seed": "1",
        }
        words = [word for option in options.items() for word in option]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "run", "openapi.json", *words),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode()
        assert process.returncode == 0, text
        assert f"Tested: {len(METHODS)}" in text, text

    world.run(test)


def _with_examples(examples: dict[str, str]) -> dict[str, Any]:
    """The description, with parameters that get through to what the methods do."""
    document = openapi.document()
    for path in document["paths"].values():
        for parameter in path["get"]["parameters"]:
            if parameter["name"] in examples:
                parameter["schema"] = parameter["schema"] | {"example": examples[parameter["name"]]}
    return document


def test_nobody_in_a_session_causes_a_server_error(world: World) -> None:
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)

    async def test(world: World) -> None:
        await world.enrol()
        loop = asyncio.get_running_loop()

        @settings(max_examples=100, deadline=None)
        @given(text=texts, method=st.sampled_from([name for name, m in METHODS.items() if m.access.value == "node"]))
        def fuzz(text: str, method: str) -> None:
            arguments = {"address": text} if "address" in METHODS[method].parameters else {}

            async def call() -> int:
                return (await world.in_session(await world.hello(A), method, A, **arguments)).status

            status = asyncio.run_coroutine_threadsafe(call(), loop).result(60)
            assert status in (200, 204, 400), (method, text, status)

        await asyncio.to_thread(fuzz)

    world.run(test)
