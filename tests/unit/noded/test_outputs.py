"""What programs print into the run directory is cut before it fills the memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from re6st.linux.process import Child, last_words
from re6st.noded import program_outputs


def test_a_program_that_prints_without_end_goes_on_in_a_file_that_stays_short(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "re6stnet-udp.out"
        child = await Child.start(
            "x", ("/bin/sh", "-c", "while :; do echo a warning about what a peer says; done"), path
        )
        try:
            async with asyncio.timeout(60):
                for _ in range(2):
                    while path.stat().st_size <= program_outputs.LIMIT:
                        await asyncio.sleep(0.01)
                    assert program_outputs.cut(tmp_path) == [path.name]
        finally:
            await child.stop()
        program_outputs.cut(tmp_path)
        assert path.stat().st_size <= program_outputs.LIMIT
        assert last_words(path) == "a warning about what a peer says"

    asyncio.run(main())


def test_the_end_of_what_was_printed_stays(tmp_path: Path) -> None:
    path = tmp_path / "re6stnet3-2.out"
    path.write_bytes(b"much\n" * program_outputs.LIMIT + b"the reason\n")
    program_outputs.cut(tmp_path)
    assert path.stat().st_size == program_outputs.KEPT
    assert last_words(path) == "the reason"


def test_nothing_else_is_cut(tmp_path: Path) -> None:
    short, foreign, link = tmp_path / "babeld.out", tmp_path / "mine.out", tmp_path / "re6stnet1.out"
    short.write_bytes(bytes(program_outputs.LIMIT))
    foreign.write_bytes(bytes(program_outputs.LIMIT + 1))
    link.symlink_to(foreign)
    assert program_outputs.cut(tmp_path) == []
    assert foreign.stat().st_size == program_outputs.LIMIT + 1
    assert program_outputs.cut(tmp_path / "none") == []
