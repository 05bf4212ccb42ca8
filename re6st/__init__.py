# SPDX-FileCopyrightText: 2026 the re6st authors
# SPDX-License-Identifier: Apache-2.0
"""re6st: a self-healing IPv6 overlay.

A *registry* issues certificates whose common name is the subnet of a node. Every *node* keeps a few OpenVPN tunnels to
random peers, and runs babeld over them. `re6st.core` is pure: it gets bytes, lines and events, and returns values,
events and actions. The other modules do the input and output.
"""

__version__ = "1.0.0rc1"

PROTOCOL = 10
"""The protocol number of the deployed software, which we announce (wire.md 6.7). Extensions beyond it have names, and
are negotiated separately (core/wire/extensions.py).
"""

MIN_PROTOCOL = 1
"""The oldest protocol that a registry may still allow in its network."""
