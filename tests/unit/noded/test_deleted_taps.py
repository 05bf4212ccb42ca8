"""An interface of a tunnel that another program deleted: whose tunnels are made anew, and when."""

from __future__ import annotations

import asyncio

import pytest

from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.linux.kernel import KernelError
from re6st.noded.deleted_taps import make_anew
from tests.unit.tunnel_doubles import FakeListener

PEER = Prefix(1, 16)


class World:
    """One server, one client tunnel, and what is done with them, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.refused = False
        self.running = {TunnelProtocol.TCP: FakeListener("re6stnet-tcp", self.done)}
        self.servers = self.ends = self

    def owner(self, interface: str, hardware: str) -> Prefix | None:
        return PEER if interface == "re6stnet1" else None

    def close(self, peer: Prefix) -> None:
        self.done.append(f"{peer} left")

    async def make_tap(self, name: str) -> None:
        self.done.append(f"{name} made")
        if self.refused:
            raise KernelError("cannot make the interface: no")

    async def until_unused(self, interface: str) -> None:
        await asyncio.sleep(0)
        self.done.append(f"babel has seen that {interface} is gone")

    def deleted(self, interface: str) -> list[str]:
        asyncio.run(make_anew(interface, self, self, self.until_unused))
        return self.done


@pytest.mark.parametrize("refused", [False, True])
def test_a_server_gets_another_one_once_babel_has_seen_that_the_old_one_is_gone(refused: bool) -> None:
    world = World()
    world.refused = refused
    assert world.deleted("re6stnet-tcp") == [
        "babel has seen that re6stnet-tcp is gone",
        "re6stnet-tcp made",
        "server restarted",
    ]


def test_a_client_tunnel_is_left_and_the_policy_opens_another() -> None:
    assert World().deleted("re6stnet1") == ["1/16 left"]


def test_one_without_a_tunnel_is_nobodys_loss() -> None:
    assert World().deleted("re6stnet7") == []
