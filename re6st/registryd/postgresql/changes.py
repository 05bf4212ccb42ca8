"""Changes the registry's state in PostgreSQL: the Changes of its repository, in one transaction of one connection.

Whoever changes anything holds the lock of those who write (store.py) until its transaction has ended. So it sees all
that others have changed, and nothing is decided by what was read before. That nothing is given twice does not depend on
that: prefixes and serials are unique in the tables.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import Edits
from re6st.core.registry.clock import Marks
from re6st.core.registry.presence import Stay
from re6st.core.routing.babel_keys import KeyState
from re6st.keys import pki
from re6st.registryd.postgresql.free_space import StoredAllocator, StoredNumbers
from re6st.registryd.postgresql.queries import TOKEN_KEY, Connection, PostgresQueries, storable, to_text
from re6st.registryd.records import Issued, LastCall, Slot, StoredEvent
from re6st.registryd.repository import Conflict, NotFound, Outdated
from re6st.registryd.stored_configuration import SWITCH_TIME
from re6st.registryd.unused_prefixes import unused

logger = logging.getLogger("store")

CLEAN_UP_LIMIT = 1000
VERSION = "version"
"""The value of the configuration that changes with the parameters of the network."""


class PostgresChanges(PostgresQueries):
    """Writes rows, in the transaction that `store.py` has begun."""

    def __init__(self, db: Connection, network_length: int) -> None:
        super().__init__(db)
        self.allocator = StoredAllocator(db, network_length)
        self.numbers = StoredNumbers(db)
        self.news: set[Outdated] = set()
        """What others remember, and has changed."""

    def prepare(self) -> None:
        """Make what a new database lacks besides tables."""
        if self.config(TOKEN_KEY) is None:
            self.set_config(TOKEN_KEY, secrets.token_bytes(32))

    # --- certificates ---

    def issue(
        self,
        community: Prefix,
        length: int,
        email: str | None,
        make: Callable[[Slot], x509.Certificate],
        taken: Collection[Prefix] = (),
    ) -> Issued:
        """Take a free prefix of `length` bits in a community, and store the certificate that `make` makes for it.

        A prefix that is `taken` is skipped and reserved: a node that was forgotten uses it. The very first prefix
        becomes that of the registry's own node (wire.md 4.5). Raises AllocationError.
        """
        prefix = unused(lambda: self._allocate(community, length), self._reserve, taken)
        number = self.numbers.take()
        new = make(Slot(prefix, number, self._next_serial()))
        if self.registry_prefix() is None:
            self.set_config("prefix", prefix.bits)
        return self._insert(prefix, email and storable(email), number, new)

    def renew(self, old: Issued, make: Callable[[int], x509.Certificate]) -> Issued:
        """Replace a certificate by one with a new serial, which `make` makes."""
        self._supersede(old)
        new = make(self._next_serial())
        if not pki.same_key(cert.load_pem(old.pem).public_key(), new.public_key()):
            self._end_sessions(old.prefix)
        return self._replace(old.prefix, new)

    def restore(self, prefix: Prefix, found: x509.Certificate) -> Issued:
        """Store a certificate that was forgotten: in place of an older one, or where the prefix is free.

        If its key is another one, e-mail address, name and tags are deleted: it may be somebody else's. Raises Conflict
        if somebody else has the prefix.
        """
        number, old = cert.number_of_cert(found), self.issued(prefix)
        if old is None:
            if not self._execute("DELETE FROM reserved WHERE prefix = %s", prefix.bits):
                edits = self.allocator.reserve(prefix)
                if not edits.reserved:
                    raise Conflict(f"{prefix} is not free")
            self._take_number(number)
            return self._insert(prefix, None, number, found)
        self._supersede(old)
        before = self.one("SELECT number FROM certificate WHERE prefix = %s", prefix.bits)[0]
        same = pki.same_key(cert.load_pem(old.pem).public_key(), found.public_key())
        self._take_number(number)
        self._execute(
            "UPDATE certificate SET number = %s, email = CASE WHEN %s THEN email END WHERE prefix = %s",
            *(number, same, prefix.bits),
        )
        if before != number:
            self._release_number(before)
        if not same:
            self.set_tags(prefix, ())
            self.set_name(prefix, None)
        self._end_sessions(prefix)
        return self._replace(prefix, found)

    def _insert(self, prefix: Prefix, email: str | None, number: int | None, new: x509.Certificate) -> Issued:
        issued = _issued(prefix, new)
        self._end_sessions(prefix)
        self._execute(
            "INSERT INTO certificate (prefix, email, pem, serial, number, not_after) VALUES (%s, %s, %s, %s, %s, %s)",
            *(prefix.bits, email, issued.pem.decode("ascii"), issued.serial, number, issued.not_after),
        )
        return issued

    def _replace(self, prefix: Prefix, new: x509.Certificate) -> Issued:
        issued = _issued(prefix, new)
        self._execute(
            "UPDATE certificate SET pem = %s, serial = %s, not_after = %s WHERE prefix = %s",
            *(issued.pem.decode("ascii"), issued.serial, issued.not_after, prefix.bits),
        )
        return issued

    def _end_sessions(self, prefix: Prefix) -> None:
        """They were begun with the key of another certificate."""
        self._execute("DELETE FROM session WHERE prefix = %s", prefix.bits)

    def _supersede(self, old: Issued) -> None:
        """Another certificate replaces this one."""
        self._execute(
            "INSERT INTO superseded VALUES (%s, %s, %s) ON CONFLICT (serial) DO UPDATE SET prefix = excluded.prefix,"
            " not_after = excluded.not_after",
            *(old.serial, old.prefix.bits, old.not_after),
        )

    def _next_serial(self) -> int:
        row = self.one(
            "INSERT INTO config VALUES ('serial', 'integer', '1') ON CONFLICT (name)"
            " DO UPDATE SET value = (config.value::bigint + 1)::text RETURNING value"
        )
        return int(row[0])

    # --- prefixes and numbers ---

    def free_leaves(self) -> Iterator[Prefix]:
        """The prefixes that are free."""
        return iter(self.allocator)

    def _allocate(self, community: Prefix, length: int) -> Prefix:
        prefix, edits = self.allocator.allocate(community, length)
        self._write_reserved(edits)
        return prefix

    def _free(self, prefix: Prefix, *, keep: bool = False) -> None:
        row = self.one("DELETE FROM certificate WHERE prefix = %s RETURNING number", prefix.bits)
        self._end_sessions(prefix)
        self._execute("DELETE FROM superseded WHERE prefix = %s", prefix.bits)
        if keep or prefix == self.registry_prefix():
            # All nodes take a route to this prefix as proof that they are connected: nobody else may ever have it
            # (4.5).
            self._reserve(prefix)
        else:
            self.allocator.release(prefix)
        self._release_number(row and row[0])

    def _take_number(self, number: int | None) -> None:
        if number is not None:
            self.numbers.remove(number)

    def _release_number(self, number: int | None) -> None:
        if number is not None and not self.one("SELECT 1 FROM certificate WHERE number = %s", number):
            self.numbers.release(number)

    def _reserve(self, prefix: Prefix) -> None:
        self._execute("INSERT INTO reserved VALUES (%s) ON CONFLICT DO NOTHING", prefix.bits)

    def _write_reserved(self, edits: Edits) -> None:
        """The allocator has written its other changes."""
        for prefix in edits.reserved:
            self._reserve(prefix)

    # --- revocations ---

    def revoke(self, serial: int, now: float, reason: str = "") -> Prefix:
        """Revoke a serial, unless its certificate has ended; returns whose it is. Raises Conflict, NotFound."""
        if self.is_revoked(serial):
            raise Conflict(f"serial {serial} is revoked already")
        found = self.one(
            "SELECT prefix, not_after FROM certificate WHERE serial = %s"
            " UNION ALL SELECT prefix, not_after FROM superseded WHERE serial = %s LIMIT 1",
            *(serial, serial),
        )
        if found is None:
            raise NotFound(f"no certificate has the serial {serial}")
        prefix, not_after = Prefix.from_bits(found[0]), found[1]
        if not_after > now:
            self._execute("INSERT INTO revoked (serial, listed_until) VALUES (%s, %s)", serial, not_after)
            self._explain(prefix, [serial], now, reason)
        return prefix

    def evict(self, prefix: Prefix, now: float, reason: str = "", *, keep: bool = False) -> None:
        """Revoke the certificate of a prefix, and older ones of it that have not ended; make the prefix free.

        With `keep` nobody else ever gets it. Raises NotFound.
        """
        row = self.one("SELECT serial, not_after FROM certificate WHERE prefix = %s", prefix.bits)
        if row is None:
            raise NotFound(f"no certificate for {prefix}")
        added = self._revoke_older(prefix, now)
        if row[1] > int(now) and self._list(*row):
            added.append(row[0])
        self._explain(prefix, added, now, reason)
        self._free(prefix, keep=keep)

    def revoke_superseded(self, prefix: Prefix, now: float, reason: str) -> list[int]:
        """Revoke the certificates of a prefix that were replaced and have not ended; returns their serials."""
        serials = self._revoke_older(prefix, now)
        self._explain(prefix, serials, now, reason)
        return serials

    def revoke_unknown(self, serial: int, not_after: float) -> None:
        """Revoke a serial whose certificate is not stored here."""
        self._list(serial, int(not_after))

    def _revoke_older(self, prefix: Prefix, now: float) -> list[int]:
        added = self._db.execute(
            "INSERT INTO revoked (serial, listed_until) SELECT serial, not_after FROM superseded WHERE prefix = %s"
            " AND not_after > %s ON CONFLICT DO NOTHING RETURNING serial",
            (prefix.bits, int(now)),
        )
        return [row[0] for row in added.fetchall()]

    def _list(self, serial: int, until: int) -> bool:
        """Returns whether the serial was not listed before."""
        statement = "INSERT INTO revoked (serial, listed_until) VALUES (%s, %s) ON CONFLICT DO NOTHING"
        return self._execute(statement, serial, until) > 0

    def _explain(self, prefix: Prefix, serials: list[int], now: float, reason: str) -> None:
        """Store for the operator whose the revoked certificates were."""
        self._execute(
            "UPDATE revoked SET prefix = c.prefix, email = c.email, date = %s, reason = %s FROM certificate AS c"
            " WHERE c.prefix = %s AND revoked.serial = ANY(%s)",
            *(int(now), storable(reason), prefix.bits, serials),
        )

    def clean_up(self, now: float, grace: int, most: int = CLEAN_UP_LIMIT) -> bool:
        """Delete old tokens, certificates and revocations (wire.md 4.4); returns whether the list of revoked serials
        changed.

        `now` is the trusted time (core/registry/clock.py). The certificate of the registry's own node is never deleted.
        At most `most` certificates are deleted at once, so that nobody waits long.
        """
        limit = int(now) - grace
        self._execute("DELETE FROM token WHERE coalesce(expires, created + %s) <= %s", grace, int(now))
        self._execute("DELETE FROM superseded WHERE not_after <= %s", int(now))
        due = self._db.execute(
            "SELECT prefix, serial FROM certificate WHERE not_after <= %s AND prefix IS DISTINCT FROM %s"
            " ORDER BY not_after LIMIT %s",
            (limit, self.config("prefix"), most),
        )
        for bits, serial in due.fetchall():
            logger.info("certificate %d of %s ended %d s ago: its prefix is free again", serial, bits, grace)
            self._free(Prefix.from_bits(bits))
        return self._execute("DELETE FROM revoked WHERE listed_until <= %s", int(now)) > 0

    # --- tokens ---

    def add_token(
        self,
        token: str,
        email: str,
        length: int,
        now: float,
        expires: float | None = None,
        *,
        uses: int = 1,
        tags: Sequence[str] = (),
    ) -> None:
        """Store a token that ends with the grace period after `now`, or at `expires`. Raises Conflict if it exists."""
        added = self._execute(
            "INSERT INTO token (digest, token, email, prefix_length, created, expires, uses, tags)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            *(self._digest(token), storable(token), storable(email), length, int(now)),
            *(None if expires is None else int(expires), uses, " ".join(tags)),
        )
        if not added:
            raise Conflict("this token exists already")

    def use_token(self, token: str) -> None:
        """Count a use of an existing token; it is deleted with the last one."""
        if not self._execute("UPDATE token SET uses = uses - 1 WHERE digest = %s AND uses > 1", self._digest(token)):
            self.delete_token(token)

    def delete_token(self, token: str) -> bool:
        """Delete a token; returns whether it existed."""
        return self._execute("DELETE FROM token WHERE digest = %s", self._digest(token)) > 0

    # --- notes ---

    def mark_stays(self, stays: Sequence[Stay]) -> None:
        """Store since when nodes are online or offline; those without a certificate are ignored."""
        for stay in stays:
            self._execute(
                "INSERT INTO stay SELECT prefix, %s, %s FROM certificate WHERE prefix = %s ON CONFLICT (prefix)"
                " DO UPDATE SET online = excluded.online, since = excluded.since",
                *(stay.online, stay.since, stay.prefix.bits),
            )

    def set_name(self, prefix: Prefix, name: str | None) -> None:
        """Give a node a name, or none. Raises Conflict, NotFound."""
        if self.pem(prefix) is None:
            raise NotFound(f"no certificate for {prefix}")
        self._execute("DELETE FROM name WHERE prefix = %s", prefix.bits)
        if name is None:
            return
        if (other := self.named(name)) is not None:
            raise Conflict(f"{other} has the name {name} already")
        self._execute("INSERT INTO name VALUES (%s, %s)", prefix.bits, name)

    def set_tags(self, prefix: Prefix, tags: Sequence[str]) -> None:
        """Store the tags of a node, in place of those that it had. Raises NotFound."""
        if self.pem(prefix) is None and tags:
            raise NotFound(f"no certificate for {prefix}")
        self._execute("DELETE FROM tags WHERE prefix = %s", prefix.bits)
        if tags:
            self._execute("INSERT INTO tags VALUES (%s, %s)", prefix.bits, " ".join(tags))

    def mark_seen(self, calls: Sequence[LastCall]) -> None:
        """Store calls of nodes; those of nodes without a certificate are ignored, and those before the stored ones."""
        with self._db.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO seen SELECT prefix, %s, %s, %s, %s FROM certificate WHERE prefix = %s"
                " ON CONFLICT (prefix) DO UPDATE SET date = excluded.date, protocol = excluded.protocol,"
                " software = excluded.software, extensions = excluded.extensions WHERE seen.date <= excluded.date",
                [(c.date, c.protocol, storable(c.software), c.extensions, c.prefix.bits) for c in calls],
            )

    def replace_events(self, kind: str, events: Sequence[StoredEvent]) -> None:
        """Keep these events of a kind, and no others."""
        self.news.add(Outdated.EVENTS)
        numbers = [event.number for event in events]
        self._execute("DELETE FROM event WHERE kind = %s OR number = ANY(%s)", kind, numbers)
        with self._db.cursor() as cursor:
            cursor.executemany("INSERT INTO event VALUES (%s, %s, %s, %s, %s, %s)", list(map(astuple, events)))

    def set_marks(self, marks: Marks) -> None:
        """Store the times of the clock."""
        self._execute(
            "INSERT INTO clock VALUES (0, %s, %s) ON CONFLICT (id) DO UPDATE SET trusted = excluded.trusted,"
            " seen = excluded.seen",
            *(int(marks.trusted), int(marks.seen)),
        )

    def set_config(self, name: str, value: str | int | float | bytes | None) -> None:
        """Store a value, or delete it with None."""
        if name == VERSION:
            self.news.add(Outdated.PARAMETERS)
        if value is None:
            self._execute("DELETE FROM config WHERE name = %s", name)
        else:
            self._execute(
                "INSERT INTO config VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE SET kind = excluded.kind,"
                " value = excluded.value",
                *(name, *to_text(value)),
            )

    def set_babel_state(self, state: KeyState) -> None:
        for number, key in enumerate(state.keys):
            self.set_config(f"babel_hmac{number}", key)
        self.set_config("valid_until", state.valid_until)
        self.set_config(SWITCH_TIME, state.switch_time)

    def _execute(self, statement: str, *values: object) -> int:
        """Returns how many rows it changed."""
        return self._db.execute(statement.encode(), values).rowcount


def _issued(prefix: Prefix, new: x509.Certificate) -> Issued:
    return Issued(prefix, cert.to_pem(new), new.serial_number, int(pki.end_of(new).timestamp()))
