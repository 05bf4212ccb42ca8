"""Reads babeld's whole table again and again. Most lines are those of the time before, and cost hardly anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from re6st.core.routing.babel_lines import (
    BabelInterface,
    Line,
    LineError,
    Neighbour,
    OtherEntry,
    Route,
    Route4,
    Table,
    parse,
)

T = TypeVar("T")


class TableDump:
    """Takes one dump after another into a table, each at its end: half of one would say that nodes are gone.

    Nothing else changes the table meanwhile.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._before: dict[int, str] = {}
        """The routes that the lines of the last dump were about, by 64 bits of a hash of each line: they are enough."""
        self._now: dict[int, str] = {}
        self._fresh: list[Line] = []
        self._neighbours: set[str] = set()
        self._interfaces: set[str] = set()

    def add(self, lines: Iterable[str]) -> list[LineError]:
        """Some lines of a dump; returns what is wrong with those that cannot be read."""
        before, now, errors = self._before, self._now, []
        for line in lines:
            key = hash(line)
            ident = before.get(key)
            if ident is not None:
                now[key] = ident
                continue
            try:
                self._read(line, key)
            except LineError as error:
                errors.append(error)
        return errors

    def end(self) -> tuple[bool, list[LineError]]:
        """The dump is complete: whether more than metrics has changed (babel_lines.is_news), and what the table had no
        room for.
        """
        news, errors = False, []
        for line in self._fresh:
            self._replace(line)
            is_news = news or self._table.is_news(line)
            try:
                self._table.take_in(line)
            except LineError as error:
                errors.append(error)
            else:
                news = is_news
        news = self._leave_out() or news
        self._before, self._now, self._fresh = self._now, {}, []
        self._neighbours, self._interfaces = set(), set()
        return news, errors

    def drop(self) -> None:
        """The dump ended too early: it says nothing."""
        self._now, self._fresh = {}, []
        self._neighbours, self._interfaces = set(), set()

    def _read(self, line: str, key: int) -> None:
        parsed = parse(line)
        if parsed is None:
            return
        match parsed.entry:
            case OtherEntry():
                return
            case Neighbour():
                self._neighbours.add(parsed.ident)
            case BabelInterface():
                self._interfaces.add(parsed.ident)
            case entry:
                self._now[key] = parsed.ident
                if self._table.route(parsed.ident) == entry:
                    return
        self._fresh.append(parsed)

    def _replace(self, line: Line) -> None:
        """babeld names routes by where they are in its memory, and that may be another route's by now."""
        if isinstance(line.entry, Route):
            self._table.ipv4_routes.pop(line.ident, None)
        elif isinstance(line.entry, Route4):
            self._table.routes.pop(line.ident, None)

    def _leave_out(self) -> bool:
        """Forget what the dump did not name; whether there was any."""
        table = self._table
        gone = _leave_out(table.interfaces, self._interfaces) | _leave_out(table.neighbours, self._neighbours)
        if len(self._now) != len(table.routes) + len(table.ipv4_routes):
            named = set(self._now.values())
            gone |= _leave_out(table.routes, named) | _leave_out(table.ipv4_routes, named)
        return gone


def _leave_out(entries: dict[str, T], named: set[str]) -> bool:
    gone = entries.keys() - named
    for ident in gone:
        del entries[ident]
    return bool(gone)
