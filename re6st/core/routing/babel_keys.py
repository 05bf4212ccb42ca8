"""The keys with which babel signs, and how a network changes them (wire.md 5.4).

The registry keeps three keys, some of which may be absent: the first one that exists signs, the second is accepted too.
"""

from __future__ import annotations

from dataclasses import dataclass

ROTATION_TIME = 3600
"""Seconds until nodes that missed the first step should notice it (`valid_until`)."""
SWITCH_TIME = 15
"""Seconds from the step that changes the key until nodes use it: the news may need so long to reach all nodes."""
FETCHES_PER_SECOND = 250
"""Number of nodes that the registry tells in a second, by a careful guess: a larger network gets more time."""

Keys = tuple[bytes | None, bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class KeyState:
    """The keys of the database, and Unix times."""

    keys: Keys
    valid_until: float | None = None
    switch_time: float | None = None
    """When all nodes change to the key that signs now. This is for our nodes: nodes of the older software change as
    soon as they hear.
    """

    @property
    def sign(self) -> bytes | None:
        return self._present(0)

    @property
    def accept(self) -> bytes | None:
        """Empty: packets without a signature are accepted, too."""
        return self._present(1)

    def _present(self, number: int) -> bytes | None:
        present = [key for key in self.keys if key is not None]
        return present[number] if number < len(present) else None


def next_state(state: KeyState, new: bytes, now: float, nodes: int) -> KeyState:
    """The state after one updateHMAC. `new` is a random key, in case one is needed, `nodes` the number of nodes."""
    match [key is not None for key in state.keys]:
        case [True, False, False]:
            return KeyState((state.keys[0], new, None), valid_until=now + ROTATION_TIME)
        case [False, False, False]:
            return KeyState((None, new, b""))
        case [True, True, False]:
            return KeyState(
                (None, state.keys[1], state.keys[0]), switch_time=now + SWITCH_TIME + nodes / FETCHES_PER_SECOND
            )
        case _:
            last = state.keys[1] or state.keys[0] or state.keys[2] or new
            return KeyState((last, None, None), switch_time=state.switch_time)


def key_in_use(sign: bytes | None, accept: bytes | None, switch_time: float | None, now: float) -> bytes | None:
    """The key with which a node signs now: until the switch, this is the previous key."""
    return accept if accept and switch_time is not None and now < switch_time else sign
