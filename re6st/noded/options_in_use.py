"""The options of a running node and the network's parameters as its operator may show them to others: no secrets.

What a command or an argument for another program says may hold a password, so only its name is told.
"""

from __future__ import annotations

import re
from dataclasses import fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from re6st.client.files import Files
from re6st.client.registry_client import parse_url
from re6st.core.machine.bulk_rules import Bulk
from re6st.core.machine.uplinks import UplinkOption
from re6st.core.telemetry.report import Record
from re6st.core.wire.datagrams import Endpoint
from re6st.noded.hooks import HIDDEN, program
from re6st.noded.settings import Config, EffectiveConfig
from re6st.service.metrics_place import ListenAddress

COMMANDS = ("up", "daemons")
ARGUMENTS = ("babel_arguments", "openvpn_arguments")
_OPTION = re.compile(r"--[A-Za-z0-9-]+|-[A-Za-z0-9]", re.ASCII)
_NAMES = {"lan": "interface", "ports": "pp", "daemons": "daemon", "babel_arguments": "B", "openvpn_arguments": "O"}
"""Options whose field has another name."""


def options_in_use(effective: EffectiveConfig) -> Record:
    """`options` as the user set them (null: the network decides), and the network's `parameters`."""
    parameters = effective.parameters.public()
    parameters["crl"] = len(parameters["crl"])
    parameters["registry_prefix"] = effective.parameters.registry_prefix.cn
    if effective.parameters.registry_nodes:
        parameters["registry_nodes"] = [prefix.cn for prefix in effective.parameters.registry_nodes]
    signed = effective.parameters.babel_hmac_sign is not None
    return {
        "options": {
            _NAMES.get(field.name, field.name): _told(effective.config, field.name) for field in fields(Config)
        },
        "parameters": {**parameters, "babel_hmac": signed},
        "source_routes": effective.source_routes,
    }


def _told(config: Config, name: str) -> object:
    value = getattr(config, name)
    if name == "registry":
        return str(parse_url(value))
    if name == "other_registries":
        return [str(parse_url(url)) for url in value]
    if name in COMMANDS:
        return [program(command) for command in value]
    if name in ARGUMENTS:
        return [_option(word) for word in value]
    return _plain(value)


def _option(word: str) -> str:
    """The name of an option of another program; what comes with it, as in -CVALUE or --name=VALUE, is hidden."""
    name = _OPTION.match(word)
    return HIDDEN if name is None else name[0] + HIDDEN if len(name[0]) == 2 < len(word) else name[0]


def _plain(value: object) -> object:
    match value:
        case Files():
            return {field.name: str(getattr(value, field.name)) for field in fields(Files)}
        case frozenset():
            return sorted(map(str, value))
        case range():
            return f"{value[0]}-{value[-1]}"
        case tuple():
            return [_plain(each) for each in value]
        case Path() | IPv4Address() | IPv6Address() | IPv4Network() | IPv6Network():
            return str(value)
        case Endpoint() | ListenAddress() | Bulk() | UplinkOption():
            return str(value)
    return value
