"""A node whose clock is behind at the start of the machine waits for it, and says so."""

from __future__ import annotations

import asyncio
import logging

import pytest

from re6st.cert import CertError, NotYetValid
from re6st.noded import late_clock
from re6st.noded.late_clock import made_when_valid

LATE = NotYetValid("the clock says 1970-01-01T00:00Z, but the certificate is valid from 2027-06-01T00:00Z on")


class Clock:
    """Right after some looks."""

    def __init__(self, looks: int, then: Exception | None = None) -> None:
        self._looks, self._then = looks, then

    def make(self) -> str:
        self._looks -= 1
        if self._looks >= 0:
            raise LATE
        if self._then is not None:
            raise self._then
        return "node"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_clock, "LOOK", 0.001)


def play(clock: Clock, said: list[str], stop: bool = False) -> str | None:
    async def main() -> str | None:
        event = asyncio.Event()
        if stop:
            asyncio.get_running_loop().call_later(0.05, event.set)
        async with asyncio.timeout(20):
            return await made_when_valid(clock.make, event, said.append)

    return asyncio.run(main())


def test_a_node_waits_for_the_clock_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    assert play(Clock(5), said) == "node"
    assert said == [f"waiting for the clock: {LATE}"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Waiting until it is" in caplog.text


def test_a_right_clock_costs_nothing() -> None:
    said: list[str] = []
    assert play(Clock(0), said) == "node"
    assert said == []


def test_it_can_be_stopped_meanwhile() -> None:
    assert play(Clock(10**9), [], stop=True) is None


def test_what_a_person_must_mend_is_not_waited_for() -> None:
    with pytest.raises(CertError, match="not an RSA certificate"):
        play(Clock(2, CertError("cert.crt: not an RSA certificate in PEM form")), [])
