# SPDX-FileCopyrightText: 2026 the re6st authors
# SPDX-License-Identifier: Apache-2.0
"""re6st: a self-healing IPv6 overlay.

A *registry* issues certificates whose common name is the subnet of a node; every *node* keeps a few OpenVPN tunnels to
peers picked at random and runs babeld over them. The floor `re6st.core` is pure: bytes, lines and events in, values,
events and actions out; the rooms beside it do the input and output.
"""

__version__ = "1.0.0rc1"

PROTOCOL = 10
"""The deployed software's protocol number that we announce (wire.md 6.7). What is ours beyond it has names, which are
agreed on apart from it (core/wire/extensions.py)."""

MIN_PROTOCOL = 1
"""Oldest protocol a registry may still allow in its network."""
