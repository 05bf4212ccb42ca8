"""The country of an IP address, from a MaxMind country database (MaxMind DB file format 2.0; wire.md 3.4, 4.3)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maxminddb import Reader

ENVIRONMENT = "GEOIP2_MMDB"
"""The variable that names the database file; empty: no database; unset: the file PLACE, if it exists."""
PLACE = "/etc/re6stnet/GeoLite2-Country.mmdb"
"""Where nodes of the older software, and those who install it, have the database."""
ADVICE = f"put one at {PLACE}, or name it in the environment variable {ENVIRONMENT}"


class GeoIpError(Exception):
    """A file that is not a database of countries; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Location:
    """Two-letter codes of a country (ISO 3166-1) and of a continent; empty if unknown."""

    country: str = ""
    continent: str = ""


def database(named: str | None) -> Path | None:
    """The file to use, by the value of ENVIRONMENT, or None if that is unset."""
    if named is not None:
        return Path(named) if named else None
    return Path(PLACE) if os.path.isfile(PLACE) else None


class GeoIp:
    """An open database."""

    def __init__(self, path: Path) -> None:
        """Raises GeoIpError."""
        # Imported here, since only few nodes have a database, and the library takes 3 MB of memory.
        import maxminddb

        try:
            self._reader: Reader = maxminddb.open_database(path)
            kind, version = self._reader.metadata().database_type, self._reader.metadata().ip_version
        except OSError as error:
            raise GeoIpError(f"{path}: {error.strerror}") from None
        except Exception as error:  # without its C part, the library raises any error to which a damaged file leads it
            raise GeoIpError(f"{path}: not a MaxMind database: {error}") from None
        if not any(word in str(kind) for word in ("Country", "City", "Enterprise")):
            self._reader.close()
            raise GeoIpError(f"{path}: a database of type {kind}, which does not tell countries")
        self._ipv4_only = version == 4

    def close(self) -> None:
        self._reader.close()

    def place(self, address: str) -> Location:
        """The country of an IP address. Raises ValueError for a text that is not an address."""
        ip = ip_address(address.partition("%")[0])
        if ip.version == 6:
            ip = ip.ipv4_mapped or ip
        if ip.version == 6 and self._ipv4_only:
            return Location()
        try:
            record = self._reader.get(ip)
        except Exception:  # as above
            return Location()  # a damaged part of the file: unknown, like any address that is not in it
        return Location(_code(record, "country"), _code(record, "continent"))


def _code(record: object, kind: str) -> str:
    """The code in a record, if it is valid: others compare and send it as two letters."""
    entry = record.get(kind) if isinstance(record, Mapping) else None
    code = entry.get("iso_code" if kind == "country" else "code") if isinstance(entry, Mapping) else None
    return code if isinstance(code, str) and len(code) == 2 and code.isascii() and code.isalpha() else ""
