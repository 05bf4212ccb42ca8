"""Tags: words by which an operator groups nodes, such as `web` or `paris`."""

from __future__ import annotations

import re
from collections.abc import Iterable

TAG_LIMIT = 32
"""Characters of one tag."""
TAGS_LIMIT = 16
"""Tags of one node."""

_TAG = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def read_tags(words: Iterable[str]) -> tuple[str, ...]:
    """The tags, each once, in alphabetical order. Raises ValueError."""
    tags = sorted(set(words))
    for tag in tags:
        if len(tag) > TAG_LIMIT or not _TAG.fullmatch(tag):
            raise ValueError(
                f"{tag[:40]!r} is no tag: give small letters, digits and hyphens within, at most {TAG_LIMIT}, as in web"
            )
    if len(tags) > TAGS_LIMIT:
        raise ValueError(f"{len(tags)} tags: a node has at most {TAGS_LIMIT}")
    return tuple(tags)
