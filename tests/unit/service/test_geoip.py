"""Where clients are, by a small database of countries, and what follows for their prefixes (wire.md 3.4, 4.3)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import maxminddb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maxminddb.reader import Reader
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from re6st import cert
from re6st.core.registry.allocator import WHOLE_NETWORK, parse_communities
from re6st.core.wire.rpc import target
from re6st.service import geoip
from re6st.service.geoip import GeoIp, GeoIpError, Location
from tests.unit.registry_world import A, World

FRANCE, JAPAN, BRAZIL = "192.0.2.7", "2001:db8:1::7", "198.51.100.7"
NOWHERE = "203.0.113.1"


def record(country: object, continent: object) -> dict[str, object]:
    return {"country": {"iso_code": country}, "continent": {"code": continent}}


def make(path: Path, kind: str = "GeoLite2-Country", version: int = 6) -> Path:
    writer = MMDBWriter(version, kind, ipv4_compatible=version == 6)
    writer.insert_network(IPSet([f"{FRANCE}/24"]), record("FR", "EU"))
    writer.insert_network(IPSet([f"{BRAZIL}/24"]), record("BR", "SA"))
    writer.insert_network(IPSet(["100.64.0.0/24"]), record("Nowhere", 7))
    writer.insert_network(IPSet(["100.64.1.0/24"]), {"continent": {"code": "AF"}})
    writer.insert_network(IPSet(["100.64.2.0/24"]), {"country": "FR"})
    if version == 6:
        writer.insert_network(IPSet([f"{JAPAN}/48"]), record("JP", "AS"))
    writer.to_db_file(str(path))
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("geoip") / "country.mmdb")


def test_addresses_have_a_country_and_a_continent(database: Path) -> None:
    places = GeoIp(database)
    assert places.place(FRANCE) == places.place(f"::ffff:{FRANCE}") == Location("FR", "EU")
    assert places.place(JAPAN) == places.place(f"{JAPAN}%eth0") == Location("JP", "AS")
    assert places.place(NOWHERE) == Location()
    assert places.place("100.64.0.1") == Location(), "codes that are none"
    assert places.place("100.64.1.1") == Location("", "AF")
    assert places.place("100.64.2.1") == Location()
    places.close()


def test_a_database_of_ipv4_only_knows_nothing_of_ipv6(tmp_path: Path) -> None:
    places = GeoIp(make(tmp_path / "v4.mmdb", version=4))
    assert (places.place(FRANCE), places.place(JAPAN)) == (Location("FR", "EU"), Location())
    places.close()


@given(text=st.text(max_size=60))
def test_a_text_that_is_no_address_is_said_to_be_none(database: Path, text: str) -> None:
    places = GeoIp(database)
    try:
        places.place(text)
    except ValueError:
        pass
    finally:
        places.close()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d[:-3], lambda d: b"x" * 5000])
def test_a_damaged_database_is_refused_or_knows_less(
    database: Path, tmp_path: Path, damage: Callable[[bytes], bytes], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the library is Python alone, which tells of it by other errors."""
    refused_or_knows_less(damage(database.read_bytes()), tmp_path, monkeypatch, compiled)


def test_no_damage_to_a_database_ends_a_program(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, whole = random.Random(1), database.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        refused_or_knows_less(
            bytes(data[: chance.choice([len(data), chance.randrange(len(data))])]), tmp_path, monkeypatch, False
        )


def refused_or_knows_less(data: bytes, directory: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    path = directory / "damaged.mmdb"
    path.write_bytes(data)
    if not compiled:
        monkeypatch.setattr(maxminddb, "open_database", lambda path: Reader(path, maxminddb.MODE_MEMORY))
    try:
        places = GeoIp(path)
    except GeoIpError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    for address in (FRANCE, "2001:db8::1", "8.8.8.8"):
        place = places.place(address)
        assert all(len(code) in (0, 2) for code in (place.country, place.continent))
    places.close()


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeoIpError, match="of type GeoLite2-ASN, which does not tell countries"):
        GeoIp(make(tmp_path / "asn.mmdb", "GeoLite2-ASN"))
    with pytest.raises(GeoIpError, match="No such file"):
        GeoIp(tmp_path / "none.mmdb")


# --- over HTTP ---

COMMUNITIES = "00 *\n01 FR\n10 @EU @AS\n"


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity], database: Path) -> World:
    world = World(tmp_path, authority, nodes["1/16"])
    world.settings = replace(world.settings, geoip=GeoIp(database), communities=parse_communities(COMMUNITIES))
    return world


async def community(world: World, forwarded: str | None = None, **arguments: str) -> str:
    """The first bits of the prefix that a new node gets."""
    path = target("requestCertificate", {"token": "", "req": world.request(), **arguments})
    answer = await (world.get(path) if forwarded is None else world.get(path, X_Forwarded_For=forwarded))
    assert answer.status == 200
    return cert.prefix_of_cert(cert.load_pem(answer.body)).bits[:2]


def test_a_new_node_gets_a_prefix_of_its_community(world: World) -> None:
    async def test(world: World) -> None:
        assert await community(world, location="FR,EU", ip="") == "01"
        assert await community(world, location="DE,EU", ip="") == "10"
        assert await community(world, location="BR,SA", ip="") == "00"
        assert await community(world, location="*,*", ip="") == "00"
        assert await community(world, location="nonsense", ip="") == "00"
        assert await community(world, location="", ip=FRANCE) == "01"
        assert await community(world, location="", ip=JAPAN) == "10"
        assert await community(world, location="BR,SA", ip=FRANCE) == "00", "location comes first"
        assert await community(world, location="", ip="nonsense") == "00"
        assert await community(world, location="", ip="") == "00", "the TCP peer is nowhere"

    world.run(test)


def test_the_address_a_proxy_of_ours_saw_counts_and_no_other(world: World) -> None:
    async def test(world: World) -> None:
        assert await community(world, FRANCE, location="", ip="") == "01"
        assert await community(world, f"{NOWHERE}, {FRANCE}", location="", ip="") == "01"
        assert await community(world, f"{FRANCE}, {NOWHERE}", location="", ip="") == "00", "the client claims the first"
        assert await community(world, f"{FRANCE}, 127.0.0.1", location="", ip="") == "01", "two proxies of ours"
        assert await community(world, "unknown", location="", ip="") == "00"

    world.run(test)


def test_without_a_database_everybody_is_in_the_default_community(world: World) -> None:
    world.settings = replace(world.settings, geoip=None)

    async def test(world: World) -> None:
        assert await community(world, location="FR,EU", ip="") == "00"

    world.run(test)


def test_nodes_ask_for_the_country_of_an_address(world: World) -> None:
    async def test(world: World) -> None:
        prefix = cert.prefix_of_cert(await world.enrol())

        async def country(address: str) -> tuple[int, bytes]:
            answer = await world.in_session(await world.hello(prefix), "getCountry", prefix, address=address)
            return answer.status, answer.body

        assert await country(FRANCE) == (200, b"FR")
        assert await country(JAPAN) == (200, b"JP")
        assert await country(NOWHERE) == (204, b"")
        assert (await country("nonsense"))[0] == 400
        assert (await country(""))[0] == 400

    world.run(test)


def test_the_countries_that_stay_among_themselves_are_told(world: World) -> None:
    parameters = replace(world.settings.parameters, same_country=("FR", "JP"))
    world.settings = replace(world.settings, parameters=parameters, communities=WHOLE_NETWORK)

    async def test(world: World) -> None:
        await world.enrol()
        assert (await world.parameters(A)).same_country == ("FR", "JP")

    world.run(test)


def test_the_usual_place_is_looked_at_where_the_environment_names_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(geoip, "PLACE", str(tmp_path / "GeoLite2-Country.mmdb"))
    assert geoip.database(None) is None, "it is not there"
    (tmp_path / "GeoLite2-Country.mmdb").touch()
    assert geoip.database(None) == tmp_path / "GeoLite2-Country.mmdb"
    assert geoip.database("") is None
    assert geoip.database("other.mmdb") == Path("other.mmdb")
