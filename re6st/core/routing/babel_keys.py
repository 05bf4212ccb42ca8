"""The keys that babel signs with, and how a network changes them (wire.md 5.4).

The registry keeps three of them, absent at times: the first that is there signs, the second is accepted too.
"""

from __future__ import annotations

from dataclasses import dataclass

ROTATION_TIME = 3600
"""Seconds until nodes that missed the first step should notice it (`valid_until`)."""
SWITCH_TIME = 15
"""Seconds from the step that changes the key until nodes use it: so long the news may travel from node to node."""
FETCHES_PER_SECOND = 250
"""Nodes that the registry tells in a second, by a careful guess: a larger network gets more time."""

Keys = tuple[bytes | None, bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class State:
    """The keys of the database, and times in Unix seconds."""

    keys: Keys
    valid_until: float | None = None
    switch_time: float | None = None
    """When all nodes change to the key that signs now. Ours only: nodes of the older software change when they hear."""

    @property
    def sign(self) -> bytes | None:
        return self._present(0)

    @property
    def accept(self) -> bytes | None:
        """Empty: also packets that are not signed at all."""
        return self._present(1)

    def _present(self, number: int) -> bytes | None:
        present = [key for key in self.keys if key is not None]
        return present[number] if number < len(present) else None


def next_state(state: State, new: bytes, now: float, nodes: int) -> State:
    """The state after one updateHMAC; `new` is a key at random, in case one is needed, `nodes` their number."""
    match [key is not None for key in state.keys]:
        case [True, False, False]:
            return State((state.keys[0], new, None), valid_until=now + ROTATION_TIME)
        case [False, False, False]:
            return State((None, new, b""))
        case [True, True, False]:
            return State(
                (None, state.keys[1], state.keys[0]), switch_time=now + SWITCH_TIME + nodes / FETCHES_PER_SECOND
            )
        case _:
            last = state.keys[1] or state.keys[0] or state.keys[2] or new
            return State((last, None, None), switch_time=state.switch_time)


def key_in_use(sign: bytes | None, accept: bytes | None, switch_time: float | None, now: float) -> bytes | None:
    """The key a node signs with at this moment: until the switch it is still the one that will be the older one."""
    return accept if accept and switch_time is not None and now < switch_time else sign
