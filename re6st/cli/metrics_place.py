"""The option --metrics of both daemons: the address at which to serve metrics."""

from __future__ import annotations

import argparse
from ipaddress import ip_address

from re6st.cli.options import integer
from re6st.service.metrics_place import ListenAddress

METAVAR = "[ADDR]:PORT"
HELP = "serve metrics for Prometheus there, at /metrics; without an address: on the loopback interface (default: off)"


def place(text: str) -> ListenAddress:
    """An argparse type: `:9326`, `10.0.0.1:9326` or `[fd00::1]:9326`."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        if not colon or (bare and (ip_address(bare).version == 6) != (bare != host)):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form :PORT, ADDRESS:PORT or [ADDRESS]:PORT") from None
    return ListenAddress(bare, integer(1, 65535)(port))
