"""The keys of WireGuard links change while packets pass, by the real wireguard-go."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from re6st.core.prefix import Prefix
from re6st.linux.wireguard_go import WireGuardGo
from testbed import Bed, wait_until
from tests.link_machine import LinkMachine

SOON = 20
KEY_LIFE = 1.5
PACE, PINGS = 0.005, 3000
CHANGES = 5
"""That there are at least while all pings are sent."""
LOST = 1.0
"""Pings that a change of keys may cost, on average: those between the two changes of its ends, a way there and back."""

pytestmark = pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")


@pytest.fixture
def machines() -> Iterator[list[LinkMachine]]:
    by_prefix: dict[Prefix, LinkMachine] = {}
    with Bed() as bed:
        two = [LinkMachine(bed.host(f"machine{number}"), number, by_prefix, WireGuardGo, KEY_LIFE) for number in (1, 2)]
        for each in two:
            each.start()
        yield two
        for each in two:
            each.end()
            assert sorted(each.host.interfaces()) == ["eth0", "lo"]


def test_pings_pass_while_keys_change(machines: list[LinkMachine]) -> None:
    one, two = machines
    one.open(two)
    wait_until(lambda: one.link(two) and two.link(one), SOON, "their link is up")
    keys: set[bytes] = set()

    def seen() -> int:
        link = one.link(two)
        assert link is not None
        keys.add(link.own.terms.key)
        return len(keys)

    argv = ["ping", "-6", "-n", "-q", "-i", str(PACE), "-c", str(PINGS), "-W", "1", one.target(two)]
    pinging = one.host.start(argv, "ping.log")
    wait_until(lambda: seen() and pinging.poll() is not None, 10 * PINGS * PACE, "all pings are sent")
    said = (one.host.log / "ping.log").read_text()
    assert not one.gone + two.gone
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found, said
    sent, received = int(found[1]), int(found[2])
    changes = len(keys) - 1
    print(f"{changes} changes of keys, {sent - received} of {sent} pings lost")
    assert changes >= CHANGES
    assert sent - received <= LOST * changes
