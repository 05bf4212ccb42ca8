"""re6st-registry migrate: moves the state of a registry from a file to PostgreSQL, or back."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from ipaddress import IPv6Network
from pathlib import Path

from re6st import cert
from re6st.cli.options import OptionParser
from re6st.cli.registry.database import NO_DRIVER, DatabasePlace, is_url, postgresql
from re6st.registryd.listings import Record
from re6st.registryd.moving import MoveEnd, StateTable, move
from re6st.registryd.repository import RepositoryError
from re6st.registryd.sqlite.transfer import file_end


def add_options(parser: OptionParser) -> None:
    add = parser.add_argument
    add("--from", dest="source", metavar="FILE|URL", required=True, help="a file, or postgresql://..., as it is now")
    add(
        "--to",
        dest="target",
        metavar="FILE|URL",
        required=True,
        help="a new file, or a new database",
    )


def run(daemon: argparse.Namespace, options: argparse.Namespace) -> Record:
    """Raises CertError, RepositoryError."""
    network = cert.Trust(cert.load_pem(cert.read_file(daemon.ca), str(daemon.ca))).network
    source, target = (_place(text, options) for text in (options.source, options.target))
    if source.url is None and not source.file.exists():
        raise RepositoryError(f"database {source.file}: no such file")
    with _end(source, network) as old, _end(target, network) as new:
        counts = move(old, new)
    return {"from": str(source), "to": str(target), "rows": {table.value: counts[table] for table in StateTable}}


def show(record: Record, options: argparse.Namespace) -> str:
    rows = record["rows"]
    return (
        f"moved  {rows[StateTable.CERTIFICATE.value]} certificates, {rows[StateTable.TOKEN.value]} tokens,"
        f" {rows[StateTable.REVOKED.value]} revoked, from {record['from']} to {record['to']}; read again and compared"
    )


def _place(text: str, options: argparse.Namespace) -> DatabasePlace:
    if not is_url(text):
        return DatabasePlace(Path(text))
    try:
        return DatabasePlace(Path(), postgresql(text))
    except argparse.ArgumentTypeError as error:
        options.error(str(error))
        raise


def _end(where: DatabasePlace, network: IPv6Network) -> AbstractContextManager[MoveEnd]:
    if where.url is None:
        return file_end(where.file, network)
    try:
        from re6st.registryd.postgresql.transfer import server_end
    except ImportError:
        raise RepositoryError(NO_DRIVER) from None
    return server_end(where.url, network)
