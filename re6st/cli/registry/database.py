"""Where the registry's state is: in a file of its own (--db), or in PostgreSQL (--database)."""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

from re6st.registryd.repository import Repository, RepositoryError
from re6st.registryd.sqlite.store import Store

ENVIRONMENT = "RE6ST_REGISTRY_DATABASE"
SCHEMES = ("postgresql", "postgres")
SECRETS = ("password", "sslpassword")
URL_LIMIT = 4096
UNENCODED = (
    "its URL cannot be read. Percent-encode the special characters of its password: @ is %40, / is %2F, % is %25"
)
NO_DRIVER = "PostgreSQL needs psycopg 3: apt install python3-psycopg, or pip install 'psycopg[binary]'"


class DatabaseError(Exception):
    """A database that cannot be meant; the text is for the user."""


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """`url` is that of a database in PostgreSQL; None: the state is in the file. The operator's socket is beside the
    path of the file in any case.
    """

    file: Path
    url: str | None = None

    @property
    def option(self) -> str:
        """By which option it was given."""
        return "--db" if self.url is None else "--database"

    def __str__(self) -> str:
        """For the log: without a password."""
        return str(self.file) if self.url is None else without_secrets(self.url)


def add_options(add: argparse._ActionsContainer) -> None:
    help = (
        "the state is in PostgreSQL instead, postgresql://[USER@][HOST[,HOST...]]/NAME, without a password, which"
        f" belongs into ~/.pgpass or --database-file (also from the environment: {ENVIRONMENT})"
    )
    add.add_argument("--database", metavar="URL", type=postgresql, help=help)
    help = "file with the URL for --database, which may have a password: nobody else may read it"
    add.add_argument("--database-file", metavar="FILE", type=Path, help=help)


def place(options: argparse.Namespace, environment: Mapping[str, str]) -> DatabasePlace:
    """What the options and the environment say. Raises DatabaseError."""
    if options.database is not None and options.database_file is not None:
        raise DatabaseError("--database and --database-file: give one of them")
    if options.database is not None:
        return DatabasePlace(options.db, options.database)
    try:
        if options.database_file is not None:
            return DatabasePlace(options.db, _url(_content(options.database_file)))
        if given := environment.get(ENVIRONMENT):
            return DatabasePlace(options.db, _url(given))
    except ValueError as error:
        where = ENVIRONMENT if options.database_file is None else f"--database-file {options.database_file}"
        raise DatabaseError(f"{where}: {error}") from None
    return DatabasePlace(options.db)


def open_repository(where: DatabasePlace, network: IPv6Network) -> Repository:
    """The state of a registry. Raises RepositoryError."""
    if where.url is None:
        return Store(where.file, network)
    try:
        from re6st.registryd.postgresql.store import PostgresStore
    except ImportError:
        raise RepositoryError(NO_DRIVER) from None
    return PostgresStore(where.url, network)


def problems_of_server(url: str) -> Iterator[str]:
    """Why a PostgreSQL cannot be used, as texts. Nothing is changed there."""
    try:
        from re6st.registryd.postgresql.connections import problem
    except ImportError:
        yield NO_DRIVER
        return
    if found := problem(url):
        yield found


def without_secrets(url: str) -> str:
    """A URL for the log."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{user.partition(':')[0]}{at}{host}", parts.path, "", ""))


def is_url(text: str) -> bool:
    """Whether this names a database in PostgreSQL, rather than a file."""
    return text.partition("://")[0] in SCHEMES


def postgresql(text: str) -> str:
    """An argparse type: other users of this machine see command lines."""
    try:
        url = _url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if urlsplit(url).password or not parse_qs(urlsplit(url).query).keys().isdisjoint(SECRETS):
        raise argparse.ArgumentTypeError(
            "a password on the command line can be read by all users of this machine: put it into ~/.pgpass, or the"
            " URL into a file (--database-file)"
        )
    return url


def _url(text: str) -> str:
    """Raises ValueError."""
    url = text.strip()
    scheme, colon, rest = url.partition("://")
    if scheme not in SCHEMES or not colon or any(not letter.isprintable() for letter in url):
        raise ValueError("not a URL like postgresql://USER@HOST/NAME")
    # Elsewhere an @ may be of a password that was cut by a character before it, and would be shown in part.
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if rest.count("@") > ("@" in authority) or re.search("%(?![0-9A-Fa-f]{2})", rest):
        raise ValueError(UNENCODED)
    try:
        urlsplit(url)
    except ValueError:  # whose text may have the password
        raise ValueError(UNENCODED) from None
    return url


def _content(path: Path) -> str:
    """The text of a private file. Raises ValueError."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise ValueError(f"others may read it, or write to it. Run chmod 600 {path}")
            return file.read(URL_LIMIT).decode()
    except OSError as error:
        raise ValueError(error.strerror) from None
