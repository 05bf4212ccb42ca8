"""A babeld that tries without end to send what it cannot send is seen in its log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from re6st.babeld.endless_tries import EndlessTries

TRY = b"send_pc: no space left to accumulate pc.\nadd_hmac: no link-local address.\nCouldn't add HMAC.\n"
OTHER = b"Interface re6stnet1 has no link-local address.\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "babeld.log"
    path.write_bytes(OTHER)
    return path


def write(log: Path, text: bytes) -> None:
    with log.open("ab") as file:
        file.write(text)


def test_it_is_seen_and_what_was_written_is_taken_out(log: Path) -> None:
    tries = EndlessTries(log)
    assert not tries.began()
    write(log, 1000 * TRY)
    assert tries.began()
    write(log, TRY)
    assert tries.goes_on()
    tries.cut()
    assert log.read_bytes() == OTHER
    assert not tries.began(), "the cut is no news"


def test_one_that_ended_by_itself_is_not_without_end(log: Path) -> None:
    tries = EndlessTries(log)
    tries.began()
    write(log, 1000 * TRY)
    assert tries.began()
    assert not tries.goes_on()
    tries.cut()
    assert log.read_bytes() == OTHER
    write(log, TRY)
    assert not tries.began()


@pytest.mark.parametrize("text", [TRY, 1000 * OTHER, 1000 * TRY + OTHER], ids=["a few tries", "else", "else at last"])
def test_what_is_something_else_is_left_alone(log: Path, text: bytes) -> None:
    tries = EndlessTries(log)
    tries.began()
    write(log, text)
    assert not tries.began()
    tries.cut()
    assert log.read_bytes() == OTHER + text


def test_what_was_there_before_the_first_look_is_old(log: Path) -> None:
    """Of a babeld that is gone on with, or of one that ended."""
    write(log, 1000 * TRY)
    tries = EndlessTries(log)
    assert not tries.began()
    assert not tries.began()
    write(log, 1000 * TRY)
    assert tries.began()


def test_a_log_that_was_rotated_or_shortened_is_another_one(log: Path) -> None:
    tries = EndlessTries(log)
    tries.began()
    log.rename(log.with_suffix(".1"))
    log.write_bytes(1000 * TRY)
    assert not tries.began()
    write(log, 1000 * TRY)
    assert tries.began()
    os.truncate(log, 0)
    assert not tries.goes_on()
    tries.cut()
    assert log.read_bytes() == b""


def test_without_a_log_nothing_is_seen(tmp_path: Path) -> None:
    for tries in (EndlessTries(None), EndlessTries(tmp_path / "none"), EndlessTries(tmp_path)):
        assert not tries.began()
        assert not tries.began()
        assert not tries.goes_on()
        tries.cut()
    assert not list(tmp_path.iterdir())
