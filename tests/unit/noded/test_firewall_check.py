"""Others' rules are read whenever somebody changes nftables, and what they do with what we forward is said once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from re6st.core.routing.babel_settings import BabelSettings, configuration
from re6st.linux.nftables import NftError
from re6st.linux.process import MissingProgram
from re6st.noded.firewall_check import FirewallCheck
from tests.unit.babel_play import PLAIN
from tests.unit.core.machine.test_forward_chain import ACCEPT, ruleset


class Nft:
    def __init__(self) -> None:
        self.rules: object = {"nftables": []}
        self.fails = False

    async def listing(self, *words: str, contents: bool = True) -> Any:
        assert (words, contents) == (("ruleset",), False), "the contents of sets may be long"
        if self.fails:
            raise NftError("no")
        return json.loads(json.dumps(self.rules))


def test_what_is_certain_is_a_fault_with_a_consequence_and_what_is_not_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nft = Nft()
    changes: list[bool] = []
    check = FirewallCheck(changes.append, lambda: nft)  # type: ignore[arg-type, return-value]

    def look(rules: object) -> None:
        nft.rules = rules
        for _ in range(3):
            asyncio.run(check.look(nft))  # type: ignore[arg-type]

    look({"nftables": []})
    assert (check.forwards, check.broken(), check.doubts(), changes) == (True, [], [], [])
    look(ruleset())
    assert not check.forwards
    assert check.broken()[0].startswith("a firewall drops all that this machine forwards (table ip6 filter, chain FOR")
    assert (check.doubts(), changes) == ([], [False])
    look(ruleset([ACCEPT]))
    assert check.broken() == []
    assert check.doubts()[0].startswith("a firewall may drop what this machine forwards (table ip6 filter, chain FOR")
    assert changes == [False, True]
    nft.fails = True
    look(ruleset())
    assert changes == [False, True], "what cannot be read changes nothing"
    nft.fails = False
    look({"nftables": []})
    assert (check.broken(), check.doubts(), changes) == ([], [], [False, True])
    assert caplog.text.count("a firewall") == 2, "each is said once"


def test_without_nft_there_is_nothing_to_see() -> None:
    def make() -> Any:
        raise MissingProgram("nft: program not found")

    check = FirewallCheck(lambda _: None, make)
    asyncio.run(check.run())
    assert check.forwards


def test_who_does_not_forward_announces_only_what_is_his_own() -> None:
    def filters(settings: BabelSettings) -> list[str]:
        return [line for line in configuration(settings).splitlines() if line.startswith("out ")]

    assert filters(PLAIN) == []
    assert filters(replace(PLAIN, forwards=False)) == ["out ip 2001:db8:42:b::/64 eq 64 allow", "out deny"]
