"""The option --uplink of re6stnet."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from ipaddress import ip_address

from re6st.cli.options import OptionParser
from re6st.core import interfaces
from re6st.core.machine.uplink_numbers import LIMIT
from re6st.core.machine.uplinks import UplinkOption
from re6st.core.machine.wanted_state import Address

FORM = "NAME[,dev=IF][,gateway=IP][,down=MBIT][,up=MBIT][,metered]"
MOST = 1e6
"""Mbit/s."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,6})?", re.ASCII)


class _Invalid(ValueError):
    """What is wrong with one."""


def add_option(group: argparse._ArgumentGroup) -> None:
    """The option --uplink."""
    group.add_argument(
        "--uplink",
        metavar=FORM,
        action="append",
        default=[],
        help="one of several lines of this machine to the Internet: its interface (default: NAME, or that of its"
        " router), its routers (IPv4 and IPv6; default: those of its default routes), what it carries, and whether it"
        " is paid by volume, and used only where no other one works (default: each interface with a default route is"
        " one)",
    )


def uplinks_of(p: OptionParser, texts: Sequence[str]) -> tuple[UplinkOption, ...]:
    """All that are given."""
    if len(texts) > LIMIT:
        p.error(f"argument --uplink: given {len(texts)} times: {LIMIT} is the most")
    found: dict[str, UplinkOption] = {}
    for text in texts:
        try:
            uplink = _uplink(text)
        except _Invalid as error:
            p.error(f"argument --uplink: {text!r}: {error}")
        if uplink.name in found:
            p.error(f"argument --uplink: two are named {uplink.name!r}: give one of them another name")
        found[uplink.name] = uplink
    return tuple(found.values())


def _uplink(text: str) -> UplinkOption:
    name, *words = (word.strip() for word in text.split(","))
    if not _NAME.fullmatch(name):
        raise _Invalid(f"{name!r} is not a name of 1 to 15 letters, digits, points, lines and underscores")
    device, metered = "", False
    gateways: list[Address] = []
    capacities: dict[str, float] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if (word == "metered" and metered) or (key == "dev" and device) or key in capacities:
            raise _Invalid(f"{key} stands there twice")
        if word == "metered":
            metered = True
        elif key == "dev" and equals:
            device = _device(value)
        elif key == "gateway" and equals:
            gateways.append(_gateway(value))
        elif key in ("down", "up") and equals:
            capacities[key] = _capacity(key, value)
        else:
            raise _Invalid(f"{word!r} is not dev=IF, gateway=IP, down=MBIT, up=MBIT or metered")
    if len({gateway.version for gateway in gateways}) < len(gateways):
        raise _Invalid("two gateways of one family: give each a line of its own")
    return UplinkOption(name, device, tuple(gateways), capacities.get("down"), capacities.get("up"), metered)


def _device(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise _Invalid(f"{text!r} is not the name of an interface")
    if interfaces.is_ours(text):
        raise _Invalid(f"{text!r} is the name of one of our tunnels")
    return text


def _gateway(text: str) -> Address:
    try:
        ip = ip_address(text)
    except ValueError:
        raise _Invalid(f"{text!r} is not an IP address") from None
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or str(ip) == "255.255.255.255":
        raise _Invalid(f"{text!r} cannot be the address of a router")
    return ip


def _capacity(key: str, text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else 0.0
    if not 0 < value <= MOST:
        raise _Invalid(f"{key}={text} is not a number of Mbit/s above 0, up to {MOST:.0f}")
    return value
