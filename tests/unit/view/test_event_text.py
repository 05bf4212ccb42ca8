"""Every event of a node is a sentence."""

from __future__ import annotations

from re6st.view import event_text
from re6st.view.event_text import event_words
from tests.unit.view.test_status_text import event


def test_every_kind_of_event_has_words() -> None:
    for kind in event_text._HAPPENED:
        words = event_words(event(kind, 1, "4/16", seconds=3, reason="r"))
        assert "{" not in words
        assert "-" not in words, "the name of the kind itself is none"
    many = {**event("peers-lost", 1, "4/16"), "count": 21}
    assert event_words(many) == "lost 21 nodes: 4/16 and 20 more"
    assert event_words(event("of-tomorrow", 1, "4/16")) == "of-tomorrow 4/16", "one that a newer node has"
