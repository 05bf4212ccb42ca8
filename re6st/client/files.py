"""The paths of a node's certificates, which the registry's client reads, and writes when it renews them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Files:
    """Where our certificates are."""

    ca: Path
    cert: Path
    key: Path
