"""What the commands of re6st-status share: exit codes, how they print, and how they end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from re6st.cli.options import fail
from re6st.service.control_client import NodeConnection
from re6st.view import status_text as text

PROGRAM = "re6st-status"
SCHEMA = 1
"""It counts up when a field of the JSON changes its meaning or is removed."""
HEALTHY, UNHEALTHY, USAGE, NOT_RUNNING, NOT_PERMITTED, TIMEOUT = range(6)
UNKNOWN = 3
"""Exit status of a monitoring plug-in that does not know."""


def end(options: argparse.Namespace, message: str, status: int) -> NoReturn:
    """End with one line; a monitoring plug-in prints it to its output, and is unknown."""
    if options.word == "check":
        print(f"RE6ST UNKNOWN - {message}")
        raise SystemExit(UNKNOWN)
    if options.json:
        print_json({"error": message})
    fail(PROGRAM, message, status)


def print_json(record: Mapping[str, Any]) -> None:
    print(json.dumps({"schema": SCHEMA, **record}, indent=2))


def picture(connection: NodeConnection) -> dict[str, Any]:
    """The operations for the overview."""
    return {
        "status": connection.ask("status"),
        "tunnels": connection.ask("tunnels")["tunnels"],
        "routes": connection.ask("routes", limit=0),
        "events": connection.ask("events", limit=text.EVENTS_READ)["events"],
    }


def health_of(status: Mapping[str, Any]) -> int:
    return HEALTHY if status["health"]["verdict"] == "ok" else UNHEALTHY
