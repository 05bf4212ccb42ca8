"""Certificates: issued, renewed, and stored again if they were forgotten."""

from __future__ import annotations

from collections.abc import Callable, Collection

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.keys import pki
from re6st.registryd.records import Issued, Slot
from re6st.registryd.repository import Conflict
from re6st.registryd.sqlite.certificate_table import RESERVED
from re6st.registryd.sqlite.space import Space
from re6st.registryd.unused_prefixes import unused


class Certificates(Space):
    """Writes certificates."""

    _blobs: bool
    """Whether certificates are stored as BLOB."""

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
        number = self._take_number()
        new = make(Slot(prefix, number, self._next_serial()))
        self._db.execute("INSERT INTO cert VALUES (?, ?, NULL)", (prefix.bits, email))
        if self.registry_prefix() is None:
            self.set_config("prefix", prefix.bits)
        return self._write(prefix, number, new)

    def renew(self, old: Issued, make: Callable[[int], x509.Certificate]) -> Issued:
        """Replace a certificate by one with a new serial, which `make` makes."""
        number = self._supersede(old)
        return self._write(old.prefix, number, make(self._next_serial()))

    def _supersede(self, old: Issued) -> int | None:
        """Another certificate replaces that of this prefix; returns its node number."""
        row = (old.serial, old.prefix.bits, old.not_after)
        self._db.execute("INSERT OR REPLACE INTO re6st_superseded VALUES (?, ?, ?)", row)
        number: int | None = self._one("SELECT number FROM re6st_issued WHERE prefix = ?", old.prefix.bits)[0]
        return number

    def _write(self, prefix: Prefix, number: int | None, new: x509.Certificate) -> Issued:
        issued = Issued(prefix, cert.to_pem(new), new.serial_number, int(pki.end_of(new).timestamp()))
        stored = issued.pem if self._blobs else issued.pem.decode("ascii")
        self._db.execute("UPDATE cert SET cert = ? WHERE prefix = ?", (stored, prefix.bits))
        self._db.execute(
            "INSERT INTO re6st_issued VALUES (?, ?, ?, ?)", (prefix.bits, issued.serial, number, issued.not_after)
        )
        return issued

    def _next_serial(self) -> int:
        serial = int(self.config("serial") or 0) + 1
        self.set_config("serial", serial)
        return serial

    def restore(self, prefix: Prefix, found: x509.Certificate) -> Issued:
        """Store a certificate that was forgotten: in place of an older one, or where the prefix is free.

        If its key is another one, e-mail address, name and tags are deleted: it may be somebody else's. Raises Conflict
        if somebody else has the prefix.
        """
        old = self.issued(prefix)
        if old is not None:
            before, same = self._supersede(old), pki.same_key(cert.load_pem(old.pem).public_key(), found.public_key())
            row = (RESERVED, same, prefix.bits)
            self._db.execute("UPDATE cert SET cert = ?, email = iif(?, email, NULL) WHERE prefix = ?", row)
            if not same:
                self.set_tags(prefix, ())
                self._db.execute("DELETE FROM re6st_name WHERE prefix = ?", (prefix.bits,))
            self._release_number(before)
        elif self._one("SELECT cert FROM cert WHERE prefix = ?", prefix.bits) != (RESERVED,):
            edits = self.allocator.reserve(prefix)
            if not edits.reserved:
                raise Conflict(f"{prefix} is not free")
            self._apply(edits)
        number = cert.number_of_cert(found)
        if number is not None and not self._one("SELECT 1 FROM re6st_issued WHERE number = ?", number):
            self.numbers.remove(number)
            self._undo.append(lambda: self.numbers.release(number))
        return self._write(prefix, number, found)
