"""Fuzzed: files and texts of the user, and notes of the daemon before."""

from __future__ import annotations

import contextlib
import io
import tempfile
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from re6st.cli.conf import files
from re6st.cli.conf.program import ConfError
from re6st.cli.fingerprint import Fingerprint
from re6st.cli.node import expression
from re6st.cli.node import options as of_node
from re6st.cli.registry import config as registry_config
from re6st.client import http as http_client
from re6st.core.prefix import Prefix, PrefixError, prefix_of
from re6st.core.registry.allocator import CommunityError, parse_communities
from re6st.core.transport import records, wireguard_links
from re6st.core.tunnel_protocols import Role
from re6st.core.wire import wireguard
from tests.fuzz.target import Target


def tunnel_record(data: bytes) -> None:
    """What a daemon left in the run directory for the next one."""
    with contextlib.suppress(records.RecordError):
        records.decode(data)
    with contextlib.suppress(records.RecordError):
        link = wireguard_links.decode(data)
        assert wireguard_links.decode(wireguard_links.encode(link)) == link


def _options(parser: Any, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        with (
            contextlib.redirect_stderr(io.StringIO()) as said,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):
            parser.parse([f"@{file.name}"])
        assert "Traceback" not in said.getvalue()


def node_options(data: bytes) -> None:
    _options(of_node.parser(), data)


def registry_options(data: bytes) -> None:
    _options(registry_config.make_parser(), data)


def written_options(data: bytes) -> None:
    """re6st-conf reads the option file that it wrote."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ConfError):
            files.read_options(Path(file.name))


def texts(data: bytes) -> None:
    """Small things that people and peers write: names, addresses of registries, fingerprints, expressions."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(PrefixError):
        Prefix.from_cn(text)
    with contextlib.suppress(PrefixError):
        Prefix.from_bits(text)
    with contextlib.suppress(ValueError):
        http_client.parse_url(text)
    with contextlib.suppress(ConfError, ValueError):
        Fingerprint.parse(text)
    with contextlib.suppress(CommunityError):
        parse_communities(text)
    with contextlib.suppress(expression.ExpressionError):
        expression.evaluate(text, {"main": "lo", "count": 3})
    with contextlib.suppress(ValueError):
        prefix_of(IPv6Network("2001:db8:42::/48"), IPv6Network(text))


# --- what they take ---


def _link_note() -> bytes:
    own, theirs = (wireguard.Terms(key, 51820, 1420, wireguard.link_local(7)) for key in (b"o" * 32, b"t" * 32))
    end = wireguard_links.OwnEnd(b"s" * 32, own)
    return wireguard_links.encode(
        wireguard_links.WireGuardLink(Prefix(2, 16), 7, Role.CLIENT, "re6stnet1", end, theirs)
    )


TARGETS = {
    "tunnel-record": Target(
        tunnel_record,
        (
            b'{"pid": 7, "made": "x", "clients": {"0": {"peer": "2/16", "serial": 3, "address": null, "since": 1}}}',
            b'{"pid": 7, "made": "x", "name": "re6stnet1", "peer": "2/16", "endpoint": "192.0.2.1,1194,udp",'
            b' "serial": 3, "external_ip": null, "mtu": 1500, "since": 1.5}',
            _link_note(),
        ),
    ),
    "node-options": Target(
        node_options,
        (
            b"registry http://192.0.2.1/\nca ca.crt\ncert cert.crt\nkey cert.key\n# comment\ninterface eth0\n",
            b'O--verb\nO3\nclient-count 5\ndaemon "exec true"\npp 1194 udp\nip 192.0.2.1\n',
        ),
    ),
    "registry-options": Target(registry_options, (b"ca ca.crt\nkey ca.key\nport 80\nprefix-length 16\nhello 15\n",)),
    "written-options": Target(written_options, (b"registry http://192.0.2.1/\nca ca.crt\n",)),
    "texts": Target(
        texts,
        (b"120/16", b"http://user:word@[2001:db8::1]:80/x", b"sha256:aabb", b"0000/2:FR:*", b"count == 3"),
    ),
}
