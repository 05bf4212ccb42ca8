"""Tests that only run under the emulated kernel: tests/network/test_kernel_wireguard.py runs them there.

By hand: `./run emulated .venv/bin/python -m pytest tests/emulated`.
"""

from __future__ import annotations

from testbed import emulated_kernel

collect_ignore_glob = [] if emulated_kernel.inside() else ["test_*.py"]
