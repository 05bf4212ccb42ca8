"""Remembers the registry's answers to `hello`, so that nobody can replay an earlier session to the node.

In the deployed protocol, this answer contains nothing from the client (wire.md 3.3). So somebody between a node and its
registry could record whole sessions, and replay the parameters of the time before a revocation, or an older
certificate. Only our CA can sign such an answer, and only answers that are encrypted for our key count, so the
registry's answers to others do not fill this memory.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from pathlib import Path

from re6st.linux import disk

LIMIT = 4096
"""Number of answers that are remembered: those of several years."""
SIZE = 16
"""Bytes of each answer's hash."""
REPEATED = 60.0
"""For so many seconds, the same answer is accepted again: a registry repeats it until a call uses it (`used`)."""

log = logging.getLogger(__name__)


class AnsweredHellos:
    """The memory of one node, in a file of hashes, the oldest first. If the disk fails, new ones are not remembered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent: dict[bytes, float] = {}
        """When the answers of this run came, by the monotonic clock."""
        try:
            kept = path.read_bytes()[-LIMIT * SIZE :]
        except OSError:
            kept = b""
        if len(kept) % SIZE:
            log.warning(
                "%s is damaged: this node no longer recognises old answers of the registry that it listed", path
            )
            kept = b""
        self._known = OrderedDict.fromkeys(kept[start : start + SIZE] for start in range(0, len(kept), SIZE))

    def take(self, answer: bytes) -> bool:
        """Whether this signed answer is new; it is remembered, on the disk, before we go on."""
        now = time.monotonic()
        digest = hashlib.sha256(answer).digest()[:SIZE]
        if digest in self._known:
            return now < self._recent.get(digest, float("-inf")) + REPEATED
        self._known[digest] = None
        if len(self._known) > LIMIT:
            self._known.popitem(last=False)
        self._recent = {each: since for each, since in self._recent.items() if now < since + REPEATED}
        self._recent[digest] = now
        try:
            disk.replace_file(self._path, b"".join(self._known))
        except OSError as error:
            log.warning("cannot write %s: %s. Going on without it.", self._path, error.strerror or error)
        return True

    def used(self) -> None:
        """A call was answered in the last session: from now on, the registry does not repeat an earlier answer."""
        self._recent.clear()
