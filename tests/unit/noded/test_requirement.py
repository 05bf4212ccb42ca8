"""Peers that lack what the network requires (core/wire/requirement.py, noded/requirement.py)."""

from __future__ import annotations

import logging

import pytest

from re6st.core.prefix import Prefix
from re6st.core.wire.requirement import AGAIN, PATIENCE, AnnouncedNames, Requirement, RequirementResult
from re6st.noded import requirement
from re6st.noded.requirement import RequirementWatch

A, B = Prefix(1, 16), Prefix(2, 16)
REQUIRED = frozenset({"sealed-messages"})
ABLE, UNABLE = frozenset({"sealed-messages", "rekey"}), frozenset({"rekey"})


def test_who_announces_less_than_is_required_is_refused_at_once_and_until_it_announces_more() -> None:
    made = Requirement()
    assert made.look(REQUIRED, {A: AnnouncedNames(ABLE, 0), B: AnnouncedNames(UNABLE, 0)}, 1) == RequirementResult(
        ((B, REQUIRED),)
    )
    assert made.lacking == {B: REQUIRED}
    assert made.look(REQUIRED, {B: AnnouncedNames(UNABLE, 0)}, 2) == RequirementResult(), "it is told once"
    assert made.look(REQUIRED, {}, 3) == RequirementResult()
    assert made.lacking == {B: REQUIRED}, "it has no session any more"
    made.look(REQUIRED, {B: AnnouncedNames(ABLE, 4)}, 5)
    assert made.lacking == {}


def test_who_announces_nothing_is_asked_in_another_session_before_that_counts() -> None:
    """What it said may have been lost."""
    made = Requirement()
    silent = {A: AnnouncedNames(None, 0)}
    assert made.look(REQUIRED, silent, PATIENCE - 1) == RequirementResult()
    assert made.look(REQUIRED, silent, PATIENCE) == RequirementResult(again=(A,))
    assert made.lacking == {}
    silent = {A: AnnouncedNames(None, 40)}
    assert made.look(REQUIRED, silent, 50) == RequirementResult()
    assert made.look(REQUIRED, silent, 40 + PATIENCE) == RequirementResult(((A, REQUIRED),), (A,))
    silent = {A: AnnouncedNames(None, 80)}
    assert made.look(REQUIRED, silent, 80 + PATIENCE) == RequirementResult(), "nothing has changed"
    assert made.look(REQUIRED, silent, 80 + AGAIN) == RequirementResult(again=(A,)), "it may have been upgraded"
    assert made.lacking == {A: REQUIRED}
    made.look(REQUIRED, {A: AnnouncedNames(ABLE, 400)}, 401)
    assert made.lacking == {}


def test_nobody_is_refused_where_nothing_is_required_any_more() -> None:
    made = Requirement()
    made.look(REQUIRED, {B: AnnouncedNames(UNABLE, 0)}, 1)
    assert made.look(frozenset(), {B: AnnouncedNames(UNABLE, 0)}, 2) == RequirementResult()
    assert made.lacking == {}


class Mesh:
    """What a watch acts on."""

    def __init__(self) -> None:
        self.names: frozenset[str] | None = UNABLE
        self.cuts: list[Prefix] = []

    @property
    def sessions(self) -> Mesh:
        return self

    def announced(self) -> dict[Prefix, AnnouncedNames]:
        return {B: AnnouncedNames(self.names, 0)}

    def cut(self, peer: Prefix) -> None:
        self.cuts.append(peer)

    def begin_anew(self, peer: Prefix) -> None:
        raise AssertionError


def test_tunnels_with_it_are_cut_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(requirement, "EVERY", 0.0)
    mesh, required = Mesh(), frozenset[str]()
    known = Requirement()
    watch = RequirementWatch(known, mesh, mesh)
    watch.tick(required, 0)
    assert not mesh.cuts
    required = REQUIRED
    for _ in range(3):
        watch.tick(required, 0)
    assert mesh.cuts == [B]
    assert known.lacks(B)
    assert not known.lacks(A)
    assert caplog.messages == [
        "2/16 lacks what this network requires, sealed-messages: cutting its tunnels and refusing it. Upgrade it"
    ]
    assert watch.problems() == ["2/16 lacks sealed-messages, which this network requires: it is refused"]
    mesh.names = ABLE
    watch.tick(required, 0)
    assert not known.lacks(B)
    assert not watch.problems()
