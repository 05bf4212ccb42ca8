"""What the words of re6st-status share: exit codes, how they print, and how they end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from re6st.cli.options import fail
from re6st.service.control_client import Connection
from re6st.view import status_text as text

PROGRAM = "re6st-status"
SCHEMA = 1
"""Counts up when a field of the JSON changes its meaning or goes."""
HEALTHY, UNHEALTHY, USAGE, NOT_RUNNING, NOT_PERMITTED, TIMEOUT = range(6)
UNKNOWN = 3
"""Exit status of a monitoring plug-in that cannot say."""


def end(options: argparse.Namespace, message: str, status: int) -> NoReturn:
    """One line; for a monitoring plug-in on its output, and as unknown."""
    if options.word == "check":
        print(f"RE6ST UNKNOWN - {message}")
        raise SystemExit(UNKNOWN)
    if options.json:
        print_json({"error": message})
    fail(PROGRAM, message, status)


def print_json(record: Mapping[str, Any]) -> None:
    print(json.dumps({"schema": SCHEMA, **record}, indent=2))


def picture(connection: Connection) -> dict[str, Any]:
    """All that the overview is made from."""
    return {
        "status": connection.ask("status"),
        "tunnels": connection.ask("tunnels")["tunnels"],
        "routes": connection.ask("routes", limit=0),
        "events": connection.ask("events", limit=text.EVENTS_READ)["events"],
    }


def health_of(status: Mapping[str, Any]) -> int:
    return HEALTHY if status["health"]["verdict"] == "ok" else UNHEALTHY
