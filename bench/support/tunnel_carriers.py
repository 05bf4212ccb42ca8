"""What carries the tunnels of our nodes while they are measured: OpenVPN, or WireGuard, in rows of its own."""

from __future__ import annotations

import argparse

from bench.support.debian import UnavailableError
from re6st.core.tunnel_protocols import TunnelCarrier
from testbed import Host
from testbed.links import WITH_WIREGUARD, missing_wireguard

OVER_WIREGUARD = ", over WireGuard"


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option --carriers."""
    parser.add_argument(
        "--carriers",
        nargs="+",
        choices=list(map(str, TunnelCarrier)),
        default=list(map(str, TunnelCarrier)),
        help=f"what carries tunnels, each in rows of its own (default: {' '.join(TunnelCarrier)})",
    )


def chosen(options: argparse.Namespace) -> list[TunnelCarrier]:
    """What was said."""
    return list(map(TunnelCarrier, options.carriers))


def node_options(carrier: TunnelCarrier) -> tuple[str, ...]:
    """Those of each node."""
    return WITH_WIREGUARD if carrier is TunnelCarrier.WIREGUARD else ("--wireguard", "off")


def need(carrier: TunnelCarrier, host: Host) -> None:
    """Raises UnavailableError where it cannot be had on this machine."""
    if carrier is TunnelCarrier.WIREGUARD and (lack := missing_wireguard(host)):
        raise UnavailableError(lack)


def row(name: str, carrier: TunnelCarrier) -> str:
    """The name of a row."""
    return f"{name}{OVER_WIREGUARD}" if carrier is TunnelCarrier.WIREGUARD else name
