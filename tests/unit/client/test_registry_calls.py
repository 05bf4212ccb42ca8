"""What the node remembers of its calls of the registry."""

from __future__ import annotations

import asyncio

import pytest

from re6st.client.counted_client import CountedClient
from re6st.client.registry_client import (
    RegistryAnswerError,
    RegistryClient,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)


def test_calls_are_counted_by_what_became_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Exception | None] = [
        None,
        RegistryUnreachable("x"),
        RegistryRefused("x", 502),
        RegistryRefused("x", 404, proven=True),
        RegistryAnswerError("x"),
        asyncio.CancelledError(),  # type: ignore[list-item]
    ]

    async def call(self: RegistryClient, method: str, **arguments: str) -> bytes | None:
        if (end := ends.pop(0)) is not None:
            raise end
        return b"answer"

    monkeypatch.setattr(RegistryClient, "call", call)
    client = CountedClient("http://192.0.2.1/")
    assert (client.reachable, client.answered) == (None, None)
    assert asyncio.run(client.call("getDh")) == b"answer"
    answered = client.answered
    assert answered is not None
    assert client.reachable
    with pytest.raises(RegistryUnreachable):
        asyncio.run(client.call("getDh"))
    assert (client.reachable, client.answered) == (False, answered)
    with pytest.raises(RegistryRefused):
        asyncio.run(client.call("getDh"))
    assert not client.reachable, "that may be a proxy's refusal"
    assert client.answered == answered
    with pytest.raises(RegistryRefused):
        asyncio.run(client.call("getDh"))
    assert client.reachable, "a refusal is an answer, if it is the registry's"
    assert client.answered > answered
    with pytest.raises(RegistryError):
        asyncio.run(client.call("getDh"))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(client.call("getDh"))
    counted = {key: sum(durations.counts) for key, durations in client.durations.items()}
    assert counted == {
        ("getDh", "ok"): 1,
        ("getDh", "unreachable"): 1,
        ("getDh", "refused"): 2,
        ("getDh", "bad answer"): 1,
    }


def test_what_anybody_could_answer_is_no_answer_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(self: RegistryClient, method: str, **arguments: str) -> bytes | None:
        return b"<html>Welcome to nginx!</html>"

    monkeypatch.setattr(RegistryClient, "call", call)
    client = CountedClient("http://192.0.2.1/")
    asyncio.run(client.call("getCa"))
    assert client.answered is None


@pytest.mark.parametrize(("ahead", "words"), [(7200.0, "2 h behind"), (-7200.0, "2 h ahead of")])
def test_a_clock_that_differs_is_said_once_and_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ahead: float, words: str
) -> None:
    clocks = [1.0, ahead, ahead, None, 2.0, ahead]

    async def call(self: RegistryClient, method: str, **arguments: str) -> bytes | None:
        self.clock_ahead = clocks.pop(0)
        return b""

    monkeypatch.setattr(RegistryClient, "call", call)
    client = CountedClient("http://192.0.2.1/")
    problems = []
    while clocks:
        asyncio.run(client.call("getDh"))
        problems.append(client.clock_problem())
    said = f"the clock here is {words} the registry's: set the one that is wrong"
    assert problems == [None, said, said, None, None, said]
    assert caplog.messages == [f"{said}. Others may refuse our certificate, or we theirs."] * 2
