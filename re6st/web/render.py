"""Makes HTML from records: the templates, and how values are written in them. Every value is escaped."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2

from re6st import __version__
from re6st.registryd.listings import lasting, relative

HERE = Path(__file__).parent
STATIC = HERE / "static"

CSV_COLUMNS = (
    *(
        "cn",
        "name",
        "subnet",
        "address",
        "email",
        "online",
        "online_since",
        "offline_since",
        "seen",
        "version",
        "protocol",
        "tunnels",
    ),
    *("issued", "expires", "serial", "revoked", "tags"),
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters that begin a formula in a spreadsheet (OWASP, CSV injection)."""


class Renderer:
    """Makes HTML from records. The templates are read when they are first needed."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {"ago": relative, "lasting": lasting, "query": query}
        self._environment.globals |= {"release": __version__}

    def page(self, name: str, values: Mapping[str, Any]) -> str:
        """A page."""
        return self._environment.get_template(f"{name}.html").render(values)


def query(values: Mapping[str, Any], **changes: Any) -> str:
    """A query string with these values, some of them changed; empty ones are left out."""
    return urlencode({name: value for name, value in {**values, **changes}.items() if value not in ("", None, False)})


def csv_text(nodes: list[dict[str, Any]]) -> str:
    """Nodes as a table for a spreadsheet (RFC 4180)."""
    made = io.StringIO(newline="")
    writer = csv.writer(made)
    writer.writerow(CSV_COLUMNS)
    for node in nodes:
        writer.writerow([_cell(node[name]) for name in CSV_COLUMNS])
    return made.getvalue()


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case list():
            return " ".join(map(str, value))
        case bool():
            return "yes" if value else "no"
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
