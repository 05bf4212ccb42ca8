"""A program that is killed at any of its steps: calls that change files are counted, and one of them is its last."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import pytest


class Killed(BaseException):
    """As by kill -9."""


class Killer:
    """Ends `work` before or behind the call with the number `last`, of those to the functions `steps` (place, name)."""

    def __init__(
        self, patch: pytest.MonkeyPatch, steps: Sequence[tuple[object, str]], work: Callable[[], object]
    ) -> None:
        self._patch = patch
        self._steps = steps
        self._work = work
        self._last = 0
        self._behind = False
        self.count = 0
        """Calls so far, since the last start."""

    def play(self, last: int = 0, *, behind: bool = False) -> None:
        """Work until it is done, or killed. Raises Killed."""
        self.count, self._last, self._behind = 0, last, behind
        with self._patch.context() as patch:
            for place, name in self._steps:
                patch.setattr(place, name, self._counted(getattr(place, name)))
            self._work()

    def _counted(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self._last and not self._behind:
                raise Killed
            result = work(*args, **kwargs)
            if self.count == self._last:
                if isinstance(result, sqlite3.Connection):
                    result.close()  # as the kernel does for a program that is killed
                raise Killed
            return result

        return step
