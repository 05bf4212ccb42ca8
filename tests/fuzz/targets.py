"""What is fuzzed: every parser of what others send, with inputs to begin with (docs/security.md, "Fuzzing").

A target takes any bytes. It returns for what the parser takes and for what it refuses with the error that it
documents; any other exception is a fault. `python -m tests.fuzz` looks for such inputs with a coverage-guided fuzzer,
tests/unit/test_fuzz_targets.py with a few hundred random ones, and with all that once failed (`FOUND`).
"""

from __future__ import annotations

from tests.fuzz import messages, peers, programs, registry, texts

TARGETS = messages.TARGETS | registry.TARGETS | texts.TARGETS | peers.TARGETS | programs.TARGETS
FOUND: dict[str, tuple[bytes, ...]] = {}
"""Inputs that once failed, by target: they are tried again in each run of the unit tests."""
