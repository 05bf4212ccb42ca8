"""Fuzz one target in this process, which libFuzzer ends: `python -m tests.fuzz.child TARGET SECONDS`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["re6st"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

CORPUS = Path("build/fuzz")
LONGEST = 4096
"""Bytes of an input."""
SLOW = 10
"""Seconds for one input that count as a fault."""


def main(name: str, seconds: str) -> None:
    corpus, found = CORPUS / name, CORPUS / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-timeout={SLOW}",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/{name}-",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
