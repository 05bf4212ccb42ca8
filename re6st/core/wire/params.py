"""Network parameters: the signed, versioned JSON that the registry gives to every node (wire.md section 5).

`decode` takes what a registry sent and gives `Parameters` or raises `ParamsError`; it never gives half of them. Unknown
names are ignored, known ones are checked, so a damaged answer changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from re6st.core.prefix import Prefix, PrefixError
from re6st.core.wire import extensions
from re6st.core.wire.extensions import Extension, ExtensionError
from re6st.core.wire.integers import pack_integer, unpack_integer

BLOB_LIMIT = 1 << 20
"""Bytes of a compressed answer we look at."""
JSON_LIMIT = 8 << 20
"""Bytes it may unpack to: a million revoked serials."""
VERSION_LIMIT = 9 + 1024
KEY_LENGTH = 16
SERIAL_LIMIT = 1 << 160
"""Of certificates: 20 bytes (RFC 5280). A longer one would be no file name."""
COUNTRIES_LIMIT = 300
"""More than there are."""
TIME_LIMIT = 1e12
"""Unix time that no parameter reaches; also keeps infinity and NaN out."""

BABEL_HELLO = 0.25
"""Seconds between the hellos of a network without older nodes."""

PLANES = 2
"""Routing planes that a network has at most."""

REGISTRIES_LIMIT = 8
"""Registries that the parameters name at most."""
URL_LIMIT = 255
"""Characters of the URL of one, at most."""

REGIONS_LIMIT = 64
"""Bits of a prefix that say in which region a node is, at most."""

BABEL_DEFAULT = "max-rtt-penalty 5000 rtt-max 500 rtt-decay 125"

_BABEL_TEXT = re.compile(r"[A-Za-z0-9 ._-]{0,500}", re.ASCII)


class ParamsError(ValueError):
    """Parameters that are damaged, out of range or not signed."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What wire.md 5.1 lists. Times are Unix seconds, intervals seconds."""

    registry_prefix: Prefix
    version: bytes = b"\0"
    babel_default: str = BABEL_DEFAULT
    crl: frozenset[int] = frozenset()
    protocol: int = 1
    min_protocol: int = 1
    extensions: frozenset[str] = frozenset()
    """What the registry can do beyond the deployed protocol (extensions.py). Ours only, as is the next one."""
    require: frozenset[str] = frozenset()
    """Extensions without which a node must stop."""
    client_count: int = 10
    max_clients: int = 20
    encrypt: bool = False
    hello: int = 15
    babel_hello: float | None = None
    """Seconds between babel's hellos, where no node needs `hello` for it. Ours only.

    babeld forgets a neighbour that has not got through the challenge of RFC 8967 before the next hello of any other
    neighbour is due. So one link with short hellos keeps older nodes, whose hellos are rare, from getting in, also
    among themselves.
    """
    longest_prefix: int | None = None
    """The length of the longest prefix of a node, so that others can refuse to route parts of one. Ours only."""
    planes: int = 1
    """Routing planes: 2 where bulk traffic has ways of its own, by capacity (core/routing/planes.py). Ours only."""
    regions: int = 0
    """How many bits of a prefix tell the region of a node (core/routing/regions.py); 0: the network is flat. Ours only.
    """
    registries: tuple[str, ...] = ()
    """URLs of the network's registries, for nodes that can ask another one when theirs does not answer. Ours only."""
    registry_nodes: tuple[Prefix, ...] = ()
    """Nodes on the machines of other registries, which prove as well as `registry_prefix` that one is connected."""
    tunnel_refresh: int = 300
    ipv4: IPv4Network | None = None
    ipv4_sublen: int = 0
    same_country: tuple[str, ...] | None = None
    babel_hmac_sign: bytes | None = field(default=None, repr=False)
    babel_hmac_accept: bytes | None = field(default=None, repr=False)
    """None: no second key. Empty: accept unsigned packets too (wire.md 5.4)."""
    valid_until: float | None = None
    babel_switch_time: float | None = None
    """When all nodes change to `babel_hmac_sign`; until then they sign with `babel_hmac_accept`. Ours only: others
    ignore this name."""
    delay_restart: int = 0

    def public(self) -> dict[str, Any]:
        """The part that is the same for all nodes and that a version stands for (wire.md 5.2)."""
        values: dict[str, Any] = {
            "babel_default": self.babel_default,
            "crl": sorted(self.crl),
            "protocol": self.protocol,
            "registry_prefix": self.registry_prefix.bits,
            "client_count": self.client_count,
            "encrypt": self.encrypt,
            "hello": self.hello,
            "max_clients": self.max_clients,
            "min_protocol": self.min_protocol,
            "tunnel_refresh": self.tunnel_refresh,
        }
        if self.extensions:
            values["extensions"] = sorted(self.extensions)
        if self.require:
            values["require"] = sorted(self.require)
        if self.babel_hello is not None:
            values["babel_hello"] = self.babel_hello
        if self.longest_prefix is not None:
            values["longest_prefix"] = self.longest_prefix
        if self.planes != 1:
            values["planes"] = self.planes
        if self.regions:
            values["regions"] = self.regions
        if self.registries:
            values["registries"] = list(self.registries)
        if self.registry_nodes:
            values["registry_nodes"] = [prefix.bits for prefix in self.registry_nodes]
        if self.ipv4 is not None:
            values["ipv4"] = str(self.ipv4)
            values["ipv4_sublen"] = self.ipv4_sublen
        if self.same_country:
            values["same_country"] = list(self.same_country)
        return values

    def text(self) -> str:
        """What the registry keeps as `last_config` to see a change."""
        return json.dumps(self.public(), sort_keys=True)


class Encoder:
    """Makes the answers of getNetworkConfig. What all nodes get, the revoked serials too, is compressed once."""

    def __init__(self, parameters: Parameters) -> None:
        self._sign = parameters.babel_hmac_sign
        self._accept = parameters.babel_hmac_accept
        values = parameters.public()
        if parameters.valid_until is not None:
            values["valid_until"] = parameters.valid_until
        if parameters.babel_switch_time is not None:
            values["babel_switch_time"] = parameters.babel_switch_time
        values[""] = ["version"]
        values["version"] = _base64(parameters.version)
        common = json.dumps(values).encode().removesuffix(b"}")
        compressor = zlib.compressobj()
        self._start = compressor.compress(common) + compressor.flush(zlib.Z_FULL_FLUSH)
        self._adler = zlib.adler32(common)

    def encode(self, encrypt: Callable[[bytes], bytes]) -> bytes:
        """The answer for one node; `encrypt` is ENCRYPT to that node (vectors/network_config.json)."""
        values = {}
        if self._sign is not None:
            values["babel_hmac_sign"] = _base64(encrypt(self._sign))
        if self._accept is not None:
            values["babel_hmac_accept"] = _base64(encrypt(self._accept)) if self._accept else ""
        rest = "".join(f', "{name}": "{value}"' for name, value in values.items()).encode() + b"}"
        # A full flush ends at a byte, so any deflate blocks may follow; zlib's checksum is over all (RFC 1950, 1951).
        return self._start + zlib.compress(rest, wbits=-zlib.MAX_WBITS) + zlib.adler32(rest, self._adler).to_bytes(4)


def decode(blob: bytes, decrypt: Callable[[bytes], bytes]) -> Parameters:
    """The parameters in an answer of getNetworkConfig; `decrypt` is DECRYPT with our key and may raise ParamsError.

    Raises ParamsError. The version's signature is for the caller to check.
    """
    if len(blob) > BLOB_LIMIT:
        raise ParamsError("the answer is too large")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(blob, JSON_LIMIT)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise ParamsError("the answer is cut short or unpacks to too much")
        values = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise ParamsError(f"not compressed JSON: {error}") from None
    if not isinstance(values, dict):
        raise ParamsError("the answer is not a JSON object")
    return from_json(values, decrypt)


def from_json(values: dict[str, Any], decrypt: Callable[[bytes], bytes]) -> Parameters:
    """Parameters from the JSON object. Raises ParamsError."""
    sign, accept = values.get("babel_hmac_sign"), values.get("babel_hmac_accept")
    return check(
        values
        | {
            "version": _bytes("version", values.get("version")),
            "babel_hmac_sign": None if sign is None else decrypt(_bytes("babel_hmac_sign", sign)),
            "babel_hmac_accept": (
                None if accept is None else b"" if accept == "" else decrypt(_bytes("babel_hmac_accept", accept))
            ),
        }
    )


def check(values: dict[str, Any]) -> Parameters:
    """Parameters from plain values, each of the right type and within its range. Raises ParamsError.

    Names we do not know are left out; those with a default may be missing.
    """
    reader = _ValueReader(values)
    try:
        registry_prefix = Prefix.from_bits(reader.text("registry_prefix"))
    except PrefixError as error:
        raise ParamsError(f"registry_prefix: {error}") from None
    babel_default = reader.text("babel_default", BABEL_DEFAULT)
    if not _BABEL_TEXT.fullmatch(babel_default):
        raise ParamsError("babel_default has characters that no statement of babeld has")
    ipv4 = None
    if values.get("ipv4") is not None:
        try:
            ipv4 = IPv4Network(reader.text("ipv4"))
        except ValueError as error:
            raise ParamsError(f"ipv4: {error}") from None
    # What has the name of ours may be something else at a registry that does not say that it is ours.
    names, hello = reader.names("extensions"), reader.seconds("babel_hello", 0.1, 3600)
    switch, required = reader.time("babel_switch_time"), reader.names("require")
    planes = reader.integer("planes", 1, 1, PLANES)
    regions = reader.integer("regions", 0, 0, REGIONS_LIMIT)
    longest = None if values.get("longest_prefix") is None else reader.integer("longest_prefix", 0, 1, 128)
    return Parameters(
        registry_prefix=registry_prefix,
        version=_version(values.get("version", b"\0")),
        babel_default=babel_default,
        crl=frozenset(reader.integers("crl")),
        protocol=reader.integer("protocol", 1, 0, 1 << 30),
        min_protocol=reader.integer("min_protocol", 1, 0, 1 << 30),
        extensions=names,
        require=required if Extension.REQUIRE in names else frozenset(),
        client_count=reader.integer("client_count", 10, 0, 1000),
        max_clients=reader.integer("max_clients", 20, 0, 100_000),
        encrypt=reader.boolean("encrypt", False),
        hello=reader.integer("hello", 15, 1, 3600),
        babel_hello=hello if Extension.BABEL_HELLO in names else None,
        longest_prefix=longest if Extension.LONGEST_PREFIX in names else None,
        planes=planes if Extension.PLANES in names else 1,
        regions=regions if Extension.REGIONS in names else 0,
        registries=reader.urls("registries") if Extension.REGISTRIES in names else (),
        registry_nodes=reader.prefixes("registry_nodes") if Extension.REGISTRIES in names else (),
        tunnel_refresh=reader.integer("tunnel_refresh", 300, 1, 1 << 30),
        ipv4=ipv4,
        ipv4_sublen=reader.integer("ipv4_sublen", 0, 0, 32),
        same_country=reader.countries("same_country"),
        babel_hmac_sign=_key("babel_hmac_sign", values.get("babel_hmac_sign")),
        babel_hmac_accept=_key("babel_hmac_accept", values.get("babel_hmac_accept")),
        valid_until=reader.time("valid_until"),
        babel_switch_time=switch if Extension.BABEL_SWITCH_TIME in names else None,
        delay_restart=reader.integer("delay_restart", 0, 0, 86400),
    )


# --- versions (wire.md 5.2) ---


def make_version(number: int, sign: Callable[[bytes], bytes]) -> bytes:
    """The version with this number, signed by the CA."""
    packed = pack_integer(number)
    return packed + sign(packed)


def version_number(version: bytes) -> int:
    """The number in a version. Raises ParamsError."""
    try:
        return unpack_integer(version)[0]
    except ValueError as error:
        raise ParamsError(f"version: {error}") from None


def check_version(version: bytes, verify: Callable[[bytes, bytes], bool]) -> bool:
    """Whether the CA signed this version; `verify(packed, signature)` is VERIFY with the CA's key."""
    try:
        _, signature = unpack_integer(version)
    except ValueError:
        return False
    return bool(signature) and verify(version[: len(version) - len(signature)], signature)


class _ValueReader:
    """Reads typed values, naming what is wrong."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str) or len(value) > 1000:
            raise ParamsError(f"{name} is not text" if name in self._values else f"{name} is missing")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ParamsError(f"{name} is not a number between {low} and {high}")
        return value

    def time(self, name: str) -> float | None:
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < TIME_LIMIT:
            raise ParamsError(f"{name} is not a time")
        return value

    def seconds(self, name: str, low: float, high: float) -> float | None:
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ParamsError(f"{name} is not a time between {low} and {high} seconds")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self._values.get(name, default)
        if value not in (0, 1, True, False):
            raise ParamsError(f"{name} is neither true nor false")
        return bool(value)

    def integers(self, name: str) -> list[int]:
        value = self._values.get(name, [])
        if not isinstance(value, list) or any(
            isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= SERIAL_LIMIT for item in value
        ):
            raise ParamsError(f"{name} is not a list of numbers up to 2^160")
        return value

    def names(self, name: str) -> frozenset[str]:
        value = self._values.get(name, [])
        if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
            raise ParamsError(f"{name} is not a list of names")
        try:
            return extensions.checked(value)
        except ExtensionError as error:
            raise ParamsError(f"{name}: {error}") from None

    def urls(self, name: str) -> tuple[str, ...]:
        """Texts that may be URLs, which is for others to check. What can be none is left out, and so are too many: a
        node can do without, but not without the rest.
        """
        value = self._values.get(name)
        texts = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
        good = [item for item in texts if len(item) <= URL_LIMIT and item.isascii() and item.isprintable()]
        return tuple(good[:REGISTRIES_LIMIT])

    def prefixes(self, name: str) -> tuple[Prefix, ...]:
        """Prefixes of nodes. As with `urls`, what is none is left out."""
        value = self._values.get(name)
        found = []
        for item in value[:REGISTRIES_LIMIT] if isinstance(value, list) else ():
            with suppress(PrefixError):
                if isinstance(item, str):
                    found.append(Prefix.from_bits(item))
        return tuple(found)

    def countries(self, name: str) -> tuple[str, ...] | None:
        value = self._values.get(name)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) > COUNTRIES_LIMIT
            or any(not isinstance(item, str) or len(item) > 8 or not item.isprintable() for item in value)
        ):
            raise ParamsError(f"{name} is not a list of country codes")
        return tuple(value) or None


def _version(value: Any) -> bytes:
    if not isinstance(value, bytes) or not 0 < len(value) <= VERSION_LIMIT:
        raise ParamsError("version is missing or too long")
    return value


def _key(name: str, value: Any) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, bytes) or len(value) not in ({0, KEY_LENGTH} if name.endswith("accept") else {KEY_LENGTH}):
        raise ParamsError(f"{name} is not a key of {KEY_LENGTH} bytes")
    return value


def _bytes(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise ParamsError(f"{name} is missing or not base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ParamsError(f"{name} is not base64") from None


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
