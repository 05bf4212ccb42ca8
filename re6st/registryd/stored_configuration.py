"""What the values of the configuration say, whichever database has them."""

from __future__ import annotations

from typing import Any

from re6st.core.prefix import Prefix, PrefixError
from re6st.core.routing.babel_keys import KeyState
from re6st.registryd.repository import ContentError

SWITCH_TIME = "re6st_switch_time"
"""Our own value of the configuration: when nodes change to the key with which babel signs."""


class StoredConfiguration:
    """Reads them."""

    def config(self, name: str) -> Any:
        """A value of the configuration; None if there is none."""
        raise NotImplementedError

    def registry_prefix(self) -> Prefix | None:
        """The prefix of the registry node; None before the first certificate. Raises ContentError."""
        bits = self.config("prefix")
        try:
            return None if bits is None else Prefix.from_bits(bits)
        except (PrefixError, TypeError, AttributeError) as error:
            raise ContentError(f"configuration 'prefix' of the database: {error}") from None

    def babel_state(self) -> KeyState:
        """The keys of babel (wire.md 5.4)."""
        keys = (self.config("babel_hmac0"), self.config("babel_hmac1"), self.config("babel_hmac2"))
        return KeyState(keys, self.config("valid_until"), self.config(SWITCH_TIME))
