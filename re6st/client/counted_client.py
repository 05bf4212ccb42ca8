"""The registry's client with counters of its calls, for status and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from re6st import cert
from re6st.client.registry_client import RegistryAnswerError, RegistryClient, RegistryRefused, RegistryUnreachable
from re6st.core.registry.clock import SKEW_WARNING, skew
from re6st.core.telemetry.metrics import Durations
from re6st.core.wire.rpc import METHODS, Access

log = logging.getLogger(__name__)

_RESULTS: dict[type[Exception], str] = {
    RegistryRefused: "refused",
    RegistryUnreachable: "unreachable",
    RegistryAnswerError: "bad answer",
}


class CountedClient(RegistryClient):
    """Calls the registry, or the first of several that answers, and remembers the results."""

    def __init__(self, url: str | Sequence[str], identity: cert.Identity | None = None) -> None:
        super().__init__(url, identity)
        self.answered: float | None = None
        """Unix time of the registry's last answer. Only an answer that is proven to be its own counts, even a refusal,
        but not that of a proxy.
        """
        self.reachable: bool | None = None
        """Whether the registry answered the last call."""
        self._clock_said = False
        self.durations: dict[tuple[str, str], Durations] = {}
        """By method and result."""

    async def call(self, method: str, **arguments: str) -> bytes | None:
        """As RegistryClient.call."""
        started, result, proven = time.monotonic(), "cancelled", False
        try:
            answer = await super().call(method, **arguments)
            # Outside a session, only the caller can see whether the answer is the registry's.
            result, proven = "ok", METHODS[method].access is Access.NODE
            return answer
        except Exception as error:
            result = _RESULTS.get(type(error), "failed")
            proven = isinstance(error, RegistryRefused) and error.proven
            raise
        finally:
            if result != "cancelled":
                self._note(method, result, time.monotonic() - started, proven=proven)

    def _note(self, method: str, result: str, seconds: float, *, proven: bool) -> None:
        self.reachable = proven or (result == "ok" and self.reachable)
        if proven:
            self.answered = time.time()
            self._compare_clocks()
        self.durations.setdefault((method, result), Durations()).add(seconds)

    def clock_problem(self) -> str | None:
        """Says by how much this machine's clock and the registry's differ."""
        ahead = self.clock_ahead
        return None if ahead is None or abs(ahead) < SKEW_WARNING else f"{skew(ahead)}: set the one that is wrong"

    def _compare_clocks(self) -> None:
        """Log once that they differ: then one of them takes a new certificate for one that is not valid yet, or has
        ended.
        """
        problem = self.clock_problem()
        if problem and not self._clock_said:
            log.warning("%s. Others may refuse our certificate, or we theirs.", problem)
        self._clock_said = problem is not None
