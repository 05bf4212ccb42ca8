"""What tests of re6st-conf start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.cli.conf import main as conf
from tests.unit.enrolment_place import Registry, Run, RunConf, serve


@pytest.fixture(scope="session")
def ca_key() -> rsa.RSAPrivateKey:
    return cert.new_key()


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    return cert.new_key()


@pytest.fixture
def registry(ca_key: rsa.RSAPrivateKey) -> Iterator[Registry]:
    registry = Registry(ca_key)
    with serve(registry) as server:
        yield registry
        server.shutdown()


@pytest.fixture
def run(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> RunConf:
    """Runs re6st-conf at the registry, in the folder `here`."""
    here = tmp_path / "here"
    here.mkdir()

    def run(*arguments: str, url: str | None = None) -> Run:
        where = [] if url == "" else ["--registry", url or registry.url]
        try:
            code = conf.main([*where, "--dir", str(here), *arguments])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 99
        out, err = capsys.readouterr()
        return Run(code, out, err)

    return run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Gives the program a terminal with these answers; returns the prompts it shows."""

    def prepare(*answers: str | type[BaseException]) -> list[str]:
        prompts: list[str] = []
        left = list(answers)

        def ask(prompt: str) -> str:
            prompts.append(prompt)
            answer = left.pop(0)
            if isinstance(answer, str):
                return answer
            raise answer

        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        return prompts

    return prepare
