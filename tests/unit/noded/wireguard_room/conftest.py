"""Two nodes that play a scene, in which everything is soon looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from re6st import cert
from re6st.client.files import Files
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.params import Parameters
from re6st.keys.wireguard import new_keys
from re6st.noded import further_links, link_table
from re6st.noded import wireguard as room
from re6st.noded.settings import Config, EffectiveConfig
from re6st.service.tasks import Tasks
from re6st.transport import wireguard as links
from tests.unit.wireguard_room_world import PUBLIC, A, Air, B, Node, Play, World


@pytest.fixture
def play(tmp_path: Path, nodes: dict[str, cert.Identity], monkeypatch: pytest.MonkeyPatch) -> Play:
    """Lets two nodes play a scene."""

    def made() -> tuple[bytes, bytes]:
        secret, key = new_keys()
        PUBLIC[secret] = key
        return secret, key

    monkeypatch.setattr(links, "new_keys", made)
    monkeypatch.setattr(links, "bring_up", lambda *_: None)
    monkeypatch.setattr(links, "LOOK_FIRST", 0.01)
    monkeypatch.setattr(room, "LOOK", 0.01)
    monkeypatch.setattr(room, "LOOK_BUSY", 0.01)
    speakers: list[Node] = []
    monkeypatch.setattr(room, "is_spoken_with", lambda *_: all(node.speaks for node in speakers))
    monkeypatch.setattr(further_links, "may_have_further", lambda *_: all(node.speaks for node in speakers))
    monkeypatch.setattr(
        link_table, "has_none", lambda _, peer, _now: any(node.bare for node in speakers if node.own == peer)
    )

    def effective(cn: str) -> EffectiveConfig:
        files, place = Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key")), tmp_path / cn.partition("/")[0]
        place.mkdir()
        ports = ((1194, TunnelProtocol.TCP),)
        config = Config("http://re6st.example.com/", files, place, place, place, ports=ports, wireguard=True)
        parameters = Parameters(Prefix(0, 16), babel_hello=0.05, max_clients=3)
        return EffectiveConfig(config, nodes[cn], parameters, {"openvpn": "/usr/sbin/openvpn"})

    def run(scene: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(30), Tasks() as tasks:
                try:
                    air = Air()
                    one, two = (Node(effective(cn), air, tasks) for cn in (A, B))
                    one.other, two.other = two, one
                    speakers[:] = [one, two]
                    await scene(World(one, two, air))
                finally:
                    await tasks.end_all()

        asyncio.run(whole())

    return run
