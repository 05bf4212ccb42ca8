"""What the node remembers of its calls of the registry."""

from __future__ import annotations

import asyncio

import pytest

from re6st.client import RegistryAnswerError, RegistryClient, RegistryError, RegistryRefused, RegistryUnreachable
from re6st.registry_calls import CountedClient


def test_calls_are_counted_by_what_became_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Exception | None] = [
        None,
        RegistryUnreachable("x"),
        RegistryRefused("x", 403),
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
    assert asyncio.run(client.call("getCa")) == b"answer"
    answered = client.answered
    assert answered is not None
    assert client.reachable
    with pytest.raises(RegistryUnreachable):
        asyncio.run(client.call("getCa"))
    assert (client.reachable, client.answered) == (False, answered)
    with pytest.raises(RegistryRefused):
        asyncio.run(client.call("getCa"))
    assert client.reachable, "a refusal is an answer"
    with pytest.raises(RegistryError):
        asyncio.run(client.call("getCa"))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(client.call("getCa"))
    counted = {key: sum(durations.counts) for key, durations in client.durations.items()}
    assert counted == {("getCa", result): 1 for result in ("ok", "unreachable", "refused", "bad answer")}
