"""Which answers to `hello` a node has had: who repeats a session of before to it has to repeat one of them.

The deployed protocol has nothing of the client in that answer (wire.md 3.3), so that somebody between a node and its
registry could record whole sessions, and play the parameters of before a revocation, or an older certificate, to it.
Only our CA can sign such an answer, and only one that is encrypted for our key counts: what it answers to others does
not fill this memory.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from pathlib import Path

from re6st.linux import disk

LIMIT = 4096
"""Answers remembered: some years of them."""
SIZE = 16
"""Bytes of the hash of each."""
REPEATED = 60.0
"""Seconds for which the same answer is taken again: a registry repeats its own until a call uses it (`used`)."""

log = logging.getLogger(__name__)


class AnsweredHellos:
    """The memory of one node, in a file that holds hashes, the oldest first. A disk that fails costs what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent: dict[bytes, float] = {}
        """When those of this run came, by the monotonic clock."""
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
        """Whether this signed answer is none of before; it is remembered, on the disk before we go on."""
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
        """A call was answered in the session of the last one: no registry repeats an answer from before that."""
        self._recent.clear()
