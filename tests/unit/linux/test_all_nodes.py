"""A packet to all nodes of a link."""

from __future__ import annotations

from re6st.linux.all_nodes import send_to_all_nodes


def test_an_interface_that_is_not_there_or_cannot_send_is_no_error() -> None:
    send_to_all_nodes("re6test-none")
    send_to_all_nodes("lo")
