"""Stock babeld in place of the patched one that the older software wants: what it is told."""

from __future__ import annotations

import pytest

from testbed.patched_babeld import translate

SIGN, ACCEPT = "key type blake2s128 id sign value 00", "key type blake2s128 id accept value 11"


@pytest.mark.parametrize("keys", [[SIGN], [SIGN, ACCEPT]], ids=["one key", "a second one that is accepted"])
def test_who_takes_a_second_key_is_not_cut_off_from_those_who_sign_with_it(keys: list[str]) -> None:
    """Where a node of the older software missed the next step of a rotation, for as long as it restarted."""
    words = [word for key in keys for word in ("-C", key)]
    arguments = translate([*words, "-C", "default rtt-max 500 key sign"]).arguments
    default = next(word for word in arguments if word.startswith("default "))
    assert default.startswith("default rtt-max 500 key sign ")
    assert ("accept-bad-signatures true" in default) is (len(keys) == 2)
