"""Whoever follows the address of an invitation in a browser is told what it is; and the operator is not bothered."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from re6st import cert
from tests.unit.registry_world import World


@pytest.fixture
def world(tmp_path: Any, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def test_a_browser_is_told_what_to_do_with_an_invitation(world: World) -> None:
    async def test(world: World) -> None:
        answer = await world.get("/")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert b"re6st-conf join" in answer.body
        assert str(world.authority.trust.network).encode() not in answer.body, "strangers learn nothing"
        assert not re.search(rb"(src|href)=|url\(|https?://[a-z]", answer.body), "it loads nothing"
        policy = answer.headers["content-security-policy"]
        for part in ("script", "style"):
            (text,) = re.findall(rf"<{part}>(.*?)</{part}>".encode(), answer.body, re.S)
            digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
            assert f"{part}-src 'sha256-{digest}'" in policy, "the browser runs it, and nothing else"
        assert (await world.get("/favicon.ico")).status == 204
        assert not world.registry.events.newest(9), "a visit is no refusal"

    world.run(test)


@pytest.mark.parametrize("path", ["/nothing", "/?x=1", "/getCa/", "//"])
def test_everything_else_is_refused_as_ever(world: World, path: str) -> None:
    async def test(world: World) -> None:
        assert (await world.get(path)).status == 400

    world.run(test)
