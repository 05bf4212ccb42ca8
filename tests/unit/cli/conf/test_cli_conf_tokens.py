"""re6st-conf with a token, without one, and by mail."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.unit.enrolment_place import TOKEN, Registry, RunConf, names, save_key

# --- tokens ---


def test_unknown_token(run: RunConf, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    result = run("--token", "wrong")
    assert result.code == 1
    assert 'token "wrong" unknown, used or expired' in result.err
    assert "Ask the operator of the network for another invitation" in result.err
    assert names(here) == ["ca.crt", "cert.key"]


def test_a_failure_leaves_the_old_certificate(
    run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey
) -> None:
    save_key(here, key)
    run("--anonymous")
    before = (here / "cert.crt").read_bytes()
    assert run("--force", "--token", "wrong").code == 1
    registry.answers["requestCertificate"] = 500, b""
    result = run("--force", "--token", TOKEN)
    assert result.code == 5
    assert "requestCertificate refused: 500" in result.err
    assert (here / "cert.crt").read_bytes() == before
    assert len(names(here)) == 4


def test_token_by_mail(run: RunConf, registry: Registry, terminal: Callable[..., list[str]], here: Path) -> None:
    prompts = terminal("alice@example.org", f" {TOKEN}\n")
    assert run().code == 0
    assert registry.calls[1] == ("requestToken", {"email": "alice@example.org"})
    assert registry.calls[2][1]["token"] == TOKEN
    assert len(prompts) == 2


def test_a_mailed_token_is_not_lost_by_a_failure(
    run: RunConf, registry: Registry, terminal: Callable[..., list[str]], here: Path, key: rsa.RSAPrivateKey
) -> None:
    save_key(here, key)
    terminal(TOKEN)
    registry.answers["requestCertificate"] = 500, b""
    result = run("--email", "alice@example.org")
    assert result.code == 5
    assert f"--token {TOKEN}" in result.err


def test_without_terminal_nothing_is_asked(
    run: RunConf, registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.setattr("builtins.input", lambda _prompt: pytest.fail("asked"))
    result = run()
    assert result.code == 2
    assert "give --token or --anonymous" in result.err
    assert registry.methods == ["getCa"]
    result = run("--email", "alice@example.org")
    assert result.code == 1
    assert "run again with --token" in result.err
    assert registry.methods == ["getCa", "getCa", "requestToken"]
    assert names(here) == []


def test_nothing_is_asked_of_who_does_not_want_to_be(
    run: RunConf, registry: Registry, terminal: Callable[..., list[str]], here: Path
) -> None:
    prompts = terminal("alice@example.org", TOKEN)
    assert run("--non-interactive").code == 2
    result = run("--non-interactive", "--email", "alice@example.org")
    assert result.code == 1
    assert "(--non-interactive): run again with --token" in result.err
    assert prompts == []
    assert names(here) == []


def test_a_token_in_a_file(
    run: RunConf,
    registry: Registry,
    here: Path,
    tmp_path: Path,
    key: rsa.RSAPrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_key(here, key)
    file = tmp_path / "token"
    file.write_text(f"\ufeff\n\u00a0“{TOKEN}”\r\n")
    assert run("--non-interactive", "--token-file", str(file)).code == 0
    assert registry.calls[-1][1]["token"] == TOKEN
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{TOKEN}\r\n".encode())))
    joining = ("--join", f"{registry.url}#sha256:{registry.fingerprint}")
    assert run("--force", *joining, "--token-file", "-", url="").code == 0
    assert registry.calls[-1][1]["token"] == TOKEN


@pytest.mark.parametrize("content", [b"", b"one two", b"\xff\xfe", None])
def test_a_token_file_that_is_none(run: RunConf, registry: Registry, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    result = run("--token-file", str(file))
    assert result.code == 2
    assert f"--token-file {file}: " in result.err
    assert registry.methods == []


@pytest.mark.parametrize(("answer", "code"), [("", 1), (EOFError, 1), (KeyboardInterrupt, 130)])
def test_no_answer_at_the_prompt(
    run: RunConf, terminal: Callable[..., list[str]], here: Path, answer: str | type[BaseException], code: int
) -> None:
    terminal(answer)
    assert run("--email", "alice@example.org").code == code
    assert names(here) == []


def test_enrolment_by_mail_is_closed(run: RunConf, registry: Registry, here: Path) -> None:
    registry.answers["requestToken"] = 403, b""
    result = run("--email", "alice@example.org")
    assert result.code == 5
    assert "does not mail tokens" in result.err
    assert "--anonymous" not in result.err, "it is likely to be closed as well"
    assert names(here) == []


def test_a_registry_that_cannot_send_mails_is_said_to_be_one(run: RunConf, registry: Registry, here: Path) -> None:
    registry.answers["requestToken"] = 500, b""
    result = run("--email", "alice@example.org")
    assert result.code == 1
    assert "cannot send mails now; its log says why. Ask its operator for an invitation." in result.err
    assert names(here) == []


def test_anonymous_enrolment_is_closed(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    registry.answers["requestCertificate"] = 403, b""
    result = run("--anonymous")
    assert result.code == 5
    assert "takes no anonymous enrolment. Ask its operator for a token." in result.err
    assert names(here) == ["ca.crt", "cert.key"]
