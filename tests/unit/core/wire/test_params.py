from __future__ import annotations

import dataclasses
import json
import random
import zlib
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.wire import params
from re6st.core.wire.extensions import KNOWN, Extension
from re6st.core.wire.integers import LIMIT, pack_integer
from re6st.core.wire.params import (
    BLOB_LIMIT,
    JSON_LIMIT,
    PLANES,
    Encoder,
    Parameters,
    ParamsError,
    check_version,
    decode,
    from_json,
    make_version,
    version_number,
)

KEYS = st.binary(min_size=16, max_size=16)


def of_one_registry(parameters: Parameters) -> Parameters:
    """Only a registry that announces what is ours sends it."""
    names = parameters.extensions
    return dataclasses.replace(
        parameters,
        babel_hello=parameters.babel_hello if Extension.BABEL_HELLO in names else None,
        longest_prefix=parameters.longest_prefix if Extension.LONGEST_PREFIX in names else None,
        planes=parameters.planes if Extension.PLANES in names else 1,
        require=parameters.require if Extension.REQUIRE in names else frozenset(),
        babel_switch_time=parameters.babel_switch_time if Extension.BABEL_SWITCH_TIME in names else None,
    )


PARAMETERS = st.builds(
    Parameters,
    registry_prefix=st.text("01", max_size=80).map(Prefix.from_bits),
    version=st.binary(min_size=1, max_size=600),
    babel_default=st.from_regex(r"[a-z0-9 .-]{0,80}", fullmatch=True),
    crl=st.frozensets(st.integers(0, 1 << 64), max_size=20),
    protocol=st.integers(0, 1000),
    min_protocol=st.integers(0, 1000),
    client_count=st.integers(0, 1000),
    max_clients=st.integers(0, 1000),
    encrypt=st.booleans(),
    hello=st.integers(1, 3600),
    extensions=st.frozensets(st.sampled_from([*KNOWN, "of-a-later-version"])) | st.just(KNOWN),
    require=st.frozensets(st.sampled_from([*KNOWN, "of-a-later-version"])),
    babel_hello=st.none() | st.floats(0.1, 3600),
    longest_prefix=st.none() | st.integers(1, 128),
    planes=st.integers(1, PLANES),
    tunnel_refresh=st.integers(1, 10**6),
    same_country=st.none() | st.lists(st.text("ABC", min_size=2, max_size=2), min_size=1).map(tuple),
    babel_hmac_sign=st.none() | KEYS,
    babel_hmac_accept=st.none() | st.just(b"") | KEYS,
    valid_until=st.none() | st.floats(0, 1e11),
    babel_switch_time=st.none() | st.floats(0, 1e11),
).map(of_one_registry)


def plain(data: bytes) -> bytes:
    """Encryption that hides nothing."""
    return data


def blob(values: Any) -> bytes:
    return zlib.compress(json.dumps(values).encode())


def test_vector(vector: Callable[[str], Any], nodes: dict[str, cert.Identity]) -> None:
    entry = vector("network_config")
    node = nodes[entry["for_cn"]]
    data = bytes.fromhex(entry["blob"])
    assert json.loads(zlib.decompress(data)) == entry["json"]

    parameters = decode(data, lambda secret: cert.decrypt(node.key, secret))

    values = entry["json"]
    assert parameters.babel_hmac_sign == bytes.fromhex(entry["babel_hmac_sign"])
    assert parameters.babel_hmac_accept is None
    assert parameters.registry_prefix.bits == values["registry_prefix"]
    assert parameters.crl == {3, 7}
    assert check_version(parameters.version, lambda packed, signature: node.verify_version(packed, signature))
    for name in ("babel_default", "protocol", "client_count", "encrypt", "hello", "max_clients", "tunnel_refresh"):
        assert getattr(parameters, name) == values[name]

    again = Encoder(parameters).encode(lambda secret: cert.encrypt(node.cert, secret))
    made = json.loads(zlib.decompress(again))
    assert made.keys() == values.keys()
    assert {**made, "babel_hmac_sign": ""} == {**values, "babel_hmac_sign": ""}
    assert decode(again, lambda secret: cert.decrypt(node.key, secret)) == parameters


def test_version_vectors(vector: Callable[[str], Any], authority: cert.Authority) -> None:
    def verify(packed: bytes, signature: bytes) -> bool:
        return cert.verify(authority.trust.ca, signature, packed)

    entries = vector("network_version")
    assert len(entries) == 5
    for entry in entries:
        version = bytes.fromhex(entry["version"])
        assert make_version(entry["integer"], lambda data: cert.sign(authority.key, data)) == version
        assert version_number(version) == entry["integer"]
        assert check_version(version, verify)
        assert not check_version(version[:-1], verify)
        assert not check_version(version[:-1] + bytes([version[-1] ^ 1]), verify)
        assert not check_version(pack_integer(entry["integer"] + 1) + version[-256:], verify)
    versions = [bytes.fromhex(entry["version"]) for entry in entries]
    assert versions == sorted(versions)


def test_the_initial_version_is_not_signed() -> None:
    assert version_number(b"\0") == 0
    assert not check_version(b"\0", lambda _packed, _signature: True)
    assert not check_version(b"", lambda _packed, _signature: True)
    with pytest.raises(ParamsError):
        version_number(b"")


@given(st.integers(0, LIMIT - 1), st.binary(min_size=1, max_size=64))
def test_version_round_trip(number: int, signature: bytes) -> None:
    version = make_version(number, lambda packed: signature)
    assert version_number(version) == number
    assert check_version(version, lambda packed, given: (packed, given) == (pack_integer(number), signature))


@given(PARAMETERS)
def test_round_trip(parameters: Parameters) -> None:
    assert decode(Encoder(parameters).encode(plain), plain) == parameters


@given(st.integers(0, 32).map(lambda n: IPv4Network((0, n))), st.integers(0, 16))
def test_ipv4_round_trip(network: IPv4Network, extra: int) -> None:
    parameters = Parameters(Prefix(0, 16), ipv4=network, ipv4_sublen=extra)
    assert decode(Encoder(parameters).encode(plain), plain) == parameters


def test_a_change_of_keys_or_version_is_no_change_of_the_public_part() -> None:
    one = Parameters(Prefix(0, 16), version=b"1", babel_hmac_sign=b"k" * 16)
    other = dataclasses.replace(one, version=b"2", babel_hmac_sign=None, valid_until=5.0)
    assert one.text() == other.text()
    assert one.text() != dataclasses.replace(one, crl=frozenset({1})).text()
    assert one.text() != dataclasses.replace(one, hello=16).text()


def test_secret_keys_do_not_show() -> None:
    parameters = Parameters(Prefix(0, 16), babel_hmac_sign=b"secret-key-12345", babel_hmac_accept=b"another-key-1234")
    assert "key-" not in repr(parameters)


def test_unknown_names_are_ignored_and_known_ones_have_defaults() -> None:
    parameters = decode(
        blob({"registry_prefix": "01", "version": "AQ==", "new": {"deep": [1]}, "": ["version"]}), plain
    )
    assert parameters == Parameters(Prefix(1, 2), version=b"\1")


def test_what_has_the_name_of_ours_counts_only_from_a_registry_of_ours() -> None:
    """A later protocol of the deployed software may use the same words for something else."""
    said = {"registry_prefix": "01", "version": "AQ==", "protocol": 11, "babel_hello": 3.5, "babel_switch_time": 9.0}
    said["planes"] = 2
    for extensions in ([], ["babel", "hello"]):
        parameters = decode(blob(said | {"extensions": extensions}), plain)
        assert parameters.planes == 1
        assert (parameters.protocol, parameters.babel_hello, parameters.babel_switch_time) == (11, None, None)
    parameters = decode(blob(said | {"extensions": ["babel-hello", "babel-switch-time"]}), plain)
    assert (parameters.babel_hello, parameters.babel_switch_time) == (3.5, 9.0)
    assert decode(blob(said | {"extensions": ["planes"]}), plain).planes == 2


def test_nodes_of_registries_that_are_none_cost_only_themselves() -> None:
    said = {"registry_prefix": "01", "version": "AQ==", "extensions": ["registries"]}
    value = ["0000000000000111", 1, "x", None, "0" * 129, [], "01"]
    assert decode(blob(said | {"registry_nodes": value}), plain).registry_nodes == (Prefix(7, 16), Prefix(1, 2))
    assert decode(blob(said | {"registry_nodes": {"a": 1}}), plain).registry_nodes == ()
    assert decode(blob(said | {"extensions": [], "registry_nodes": ["01"]}), plain).registry_nodes == ()


def test_registries_that_can_be_none_cost_only_themselves() -> None:
    said = {"registry_prefix": "01", "version": "AQ==", "extensions": ["registries"]}
    for value, known in (
        (["http://a/", "http://b/"], ("http://a/", "http://b/")),
        ([1, None, ["http://a/"], "http://b/", "http://é/", "x\n", "http://" + "a" * 255], ("http://b/",)),
        ([f"http://{number}/" for number in range(20)], tuple(f"http://{number}/" for number in range(8))),
        ("http://a/", ()),
        ({"http://a/": 1}, ()),
        (None, ()),
    ):
        assert decode(blob(said | {"registries": value}), plain).registries == known
    assert decode(blob(said | {"extensions": [], "registries": ["http://a/"]}), plain).registries == ()


GOOD = {"registry_prefix": "0000", "version": "AQ=="}


BAD: dict[str, list[Any]] = {
    "registry_prefix": [None, 1, "x", [], "0" * 129],
    "version": [None, 1, "", "x", [], "AQ=", "AAAA" * 400],
    "hello": [None, "15", 0, -1, 1.5, True, [], 1e400],
    "longest_prefix": [0, 129, "16", 1.5, True],
    "planes": [None, 0, 3, "2", 1.5, True],
    "babel_hello": ["1", 0, -1, 3601, True, [1], float("nan"), float("inf")],
    "extensions": [None, "rekey", [1], [[]], ["re key"], ["Rekey"], ["-"], ["a" * 33], ["é"], ["a"] * 65, {"a": 1}],
    "require": [None, "rekey", [1], ["re key"], ["a"] * 65],
    "tunnel_refresh": [None, "15", 0, 1 << 40],
    "client_count": [None, "1", -1, 1 << 40],
    "max_clients": [None, "1", -1, 1 << 40],
    "protocol": [None, "1", -1, 1 << 40],
    "crl": [None, "1", {}, [None], ["1"], [-1], [True], [1.5], [[1]]],
    "babel_default": [None, 5, "rtt\nkey id x", 'a "b"', "a#", "x" * 600, "é"],
    "ipv4": [1, "10.0.0.1/8", "::/8", "10.0.0.0/8/8", "", []],
    "ipv4_sublen": [None, -1, "8", 33],
    "same_country": ["FR", [1], {"FR": 1}, ["x" * 9]],
    "babel_hmac_sign": [1, [], "", "%", "AQ==", "AAAA" * 7, {}],
    "babel_hmac_accept": [1, [], "%", "AQ==", "AAAA" * 7, {}],
    "valid_until": ["1", True, [], 1e400, -1, float("nan"), 1 << 99],
    "babel_switch_time": ["1", True, [], 1e400, -1, float("nan"), 1 << 99],
    "delay_restart": [None, "1", -1, 10**9],
    "encrypt": [None, "no", 2, []],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_refuses_a_bad_value_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ParamsError) as error:
        decode(blob(GOOD | {name: value}), plain)
    assert name in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        zlib.compress(b""),
        zlib.compress(b"[]"),
        zlib.compress(b"\xff"),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b'{"a":' * 100_000),
        zlib.compress(b"9" * 10_000),
        blob(GOOD)[:-1],
        zlib.compress(b" " * (JSON_LIMIT + 1)),
        bytes(BLOB_LIMIT + 1),
    ],
    ids=range(11),
)
def test_refuses_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(ParamsError):
        decode(data, plain)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Parameters)]), JSON))
def test_any_json_gives_parameters_or_the_error(values: dict[str, Any]) -> None:
    try:
        parameters = from_json(GOOD | values, plain)
    except ParamsError:
        return
    again = decode(Encoder(parameters).encode(plain), plain)
    assert decode(Encoder(again).encode(plain), plain) == again


def test_no_country_listed_is_no_list() -> None:
    assert decode(blob(GOOD | {"same_country": []}), plain).same_country is None


def test_a_million_random_bytes(vector: Callable[[str], Any]) -> None:
    chance = random.Random(3)
    good = bytes.fromhex(vector("network_config")["blob"])
    text = zlib.decompress(good)
    for _ in range(1000):
        noise = chance.randbytes(chance.randrange(1, 2000))
        damaged = bytearray(text)
        damaged[chance.randrange(len(text))] = noise[0]
        for data in (noise, zlib.compress(noise, 1), good[: noise[0]] + noise, zlib.compress(damaged, 1)):
            try:
                decode(data, lambda secret: secret[:16])
            except ParamsError:
                pass


@pytest.mark.parametrize(
    "wrong", [{"crl": [1 << 161]}, {"crl": [10**300]}, {"same_country": ["FR"] * 301}, {"same_country": ["\x1b"]}]
)
def test_nothing_is_longer_than_it_can_be(wrong: dict[str, object]) -> None:
    values: dict[str, object] = {"registry_prefix": "0" * 16, "version": b"\0"}
    assert params.check({**values, "crl": [1 << 160], "same_country": ["FR", "JP"]}).crl == {1 << 160}
    with pytest.raises(ParamsError):
        params.check({**values, **wrong})
