"""The registry's client, with a book of what became of its calls: for the status and the metrics."""

from __future__ import annotations

import time

from re6st import cert
from re6st.client import RegistryAnswerError, RegistryClient, RegistryRefused, RegistryUnreachable
from re6st.core.metrics import Durations

_RESULTS: dict[type[Exception], str] = {
    RegistryRefused: "refused",
    RegistryUnreachable: "unreachable",
    RegistryAnswerError: "bad answer",
}


class CountedClient(RegistryClient):
    """Calls one registry, and remembers how that went."""

    def __init__(self, url: str, identity: cert.Identity | None = None) -> None:
        super().__init__(url, identity)
        self.answered: float | None = None
        """When it last answered, Unix time; a refusal is an answer too."""
        self.reachable: bool | None = None
        """Whether it answered the last call."""
        self.durations: dict[tuple[str, str], Durations] = {}
        """By method and result."""

    async def call(self, method: str, **arguments: str) -> bytes | None:
        """As RegistryClient.call."""
        started, result = time.monotonic(), "cancelled"
        try:
            answer = await super().call(method, **arguments)
            result = "ok"
            return answer
        except Exception as error:
            result = _RESULTS.get(type(error), "failed")
            raise
        finally:
            if result != "cancelled":
                self._note(method, result, time.monotonic() - started)

    def _note(self, method: str, result: str, seconds: float) -> None:
        self.reachable = result in ("ok", "refused")
        if self.reachable:
            self.answered = time.time()
        self.durations.setdefault((method, result), Durations()).add(seconds)
