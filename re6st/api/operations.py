"""The operator's operations: their names, their arguments, and how they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from re6st.registryd.listings import Record
from re6st.service.json_lines import OperationError, Status

TEXT_LIMIT = 256


class AdminError(OperationError):
    """An operation that the registry did not carry out."""


class Operations(Protocol):
    """Carries out operations: `Admin` itself, or the client of its socket."""

    async def call(self, operation: str, arguments: Mapping[str, Any]) -> Record:
        """Raises AdminError."""


class Arguments:
    """The arguments of an operation, from outside: read by type, with None as the default, and no unknown ones are
    accepted.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def text(self, name: str, limit: int = TEXT_LIMIT) -> str | None:
        value = self._values.pop(name, None)
        if value is not None and not (isinstance(value, str) and len(value) <= limit and value.isprintable()):
            raise AdminError(Status.USAGE, f"{name} is not printable text of at most {limit} characters")
        return value

    def required(self, name: str) -> str:
        if not (value := self.text(name)):
            raise AdminError(Status.USAGE, f"{name} is missing")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self._values.pop(name, None)
        if value is not None and not (type(value) is int and low <= value <= high):
            raise AdminError(Status.USAGE, f"{name} is not a number between {low} and {high}")
        return value

    def end(self) -> None:
        if self._values:
            raise AdminError(Status.USAGE, f"unknown argument {min(self._values)[:40]!r}")
