"""What of linux/kernel.py needs no root: interfaces, and errors in words."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Network, ip_address

import pytest

from re6st.core.machine.wanted_state import (
    IFF_RUNNING,
    IFF_UP,
    KernelLink,
    KernelRoute,
    KernelRule,
    TapState,
    Wanted,
    bulk_rules,
)
from re6st.linux import kernel, rtnetlink
from re6st.linux.kernel import Kernel, KernelError
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import IFA_F_NOPREFIXROUTE, InterfaceAddress


def attempt(work: Callable[[Kernel], Awaitable[object]]) -> None:
    async def run() -> None:
        own = Kernel()
        try:
            await work(own)
        finally:
            own.close()

    asyncio.run(run())


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(KernelError, match="there is no interface re6test-none"):
        attempt(lambda own: own.set_up("re6test-none"))


@pytest.mark.parametrize(("mode", "put"), [("0", ["fe80::f8e4:70ff:fe18:96ee"]), ("2", []), ("", [])])
def test_the_interface_of_a_tunnel_has_its_link_local_address_when_it_comes_up(
    monkeypatch: pytest.MonkeyPatch, mode: str, put: list[str]
) -> None:
    """The kernel may take a second to give it one, and babeld waits for that."""
    done: list[str] = []
    link = KernelLink(7, "re6stnet1", IFF_UP, "tun", bytes.fromhex("fae4701896ee"))

    async def work(own: Kernel) -> None:
        monkeypatch.setattr(own, "_index", lambda _: 7)
        monkeypatch.setattr(own._netlink, "set_link", lambda *_, **__: None)
        monkeypatch.setattr(own._netlink, "links", lambda: [link])
        monkeypatch.setattr(own._netlink, "put_address", lambda ip, *_: done.append(str(ip)))
        monkeypatch.setattr(own.state, "value", lambda _: mode)
        await own.set_up("eth7")
        assert done == [], "only those of tunnels"
        own.state.wanted = Wanted().with_tap("re6stnet1")
        await own.set_up("re6stnet1", 1400)

    attempt(work)
    assert done == put


def test_what_is_gone_already_is_no_error() -> None:
    async def work(own: Kernel) -> None:
        await own.bounce("re6test-none", at_once)
        own.state.wanted = Wanted().with_tap("re6test-none", TapState(7))
        await own.undo()

    attempt(work)


def test_the_size_that_was_found_for_a_tunnel_is_the_one_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the care for what others change would put the one of before back."""
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(rtnetlink.Netlink, "set_mtu", lambda _, index, mtu: done.append((index, mtu)))

    async def work(own: Kernel) -> None:
        own.state.wanted = Wanted().with_tap("re6stnet1", TapState(7, 1348)).with_tap("re6stnet2", TapState(8, 1500))
        own.set_mtu(7, 1280)
        own.set_mtu(9, 1420)  # nobody's
        assert own.state.wanted.taps == {"re6stnet1": TapState(7, 1280), "re6stnet2": TapState(8, 1500)}

    attempt(work)
    assert done == [(7, 1280), (9, 1420)]


def test_an_interface_of_wireguard_keeps_the_size_that_was_found_and_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it gets other keys, or is interrupted; one that is made anew has its size to be found."""
    monkeypatch.setattr(rtnetlink.Netlink, "set_mtu", lambda *_: None)
    address = IPv6Address("fe80::7")

    async def work(own: Kernel) -> None:
        Played(own, monkeypatch)
        own.take_link("re6stnet-wg1")
        own.keep_link_up("re6stnet-wg1", address)
        assert own.state.wanted.taps == {"re6stnet-wg1": TapState(7, None, address)}
        own.set_mtu(7, 1380)
        own.keep_link_up("re6stnet-wg1", address)
        await own.bounce("re6stnet-wg1", at_once)
        assert own.state.wanted.taps == {"re6stnet-wg1": TapState(7, 1380, address)}
        monkeypatch.setattr(own, "_index", lambda _: 8)
        own.keep_link_up("re6stnet-wg1", address)
        assert own.state.wanted.taps == {"re6stnet-wg1": TapState(8, None, address)}

    attempt(work)


@pytest.mark.parametrize(
    ("code", "advice", "lasting"),
    [
        (errno.EPERM, "CAP_NET_ADMIN", True),
        (errno.ENODEV, "modprobe tun", True),
        (errno.EBUSY, "See the kernel's log", False),
    ],
)
def test_a_refusal_says_what_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, code: int, advice: str, lasting: bool
) -> None:
    def refuse(*_: object) -> None:
        raise NetlinkError(code, "no")

    monkeypatch.setattr(rtnetlink, "make_tap", refuse)
    with pytest.raises(KernelError, match=rf"^cannot make the interface x: no\. .*{advice}") as raised:
        attempt(lambda own: own.make_tap("x"))
    assert "\n" not in str(raised.value)
    assert raised.value.lasting is lasting, "only a person can mend it"


@pytest.mark.parametrize(("code", "has_them"), [(errno.EINVAL, False), (errno.EPERM, True)])
def test_a_kernel_without_routes_by_source(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, has_them: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NetlinkError(code, "no")

    async def work(own: Kernel) -> None:
        monkeypatch.setattr(own._netlink, "add_route", refuse)
        assert await own.source_specific() is has_them

    attempt(work)
    assert ("IPV6_SUBTREES" in caplog.text) is not has_them


@pytest.mark.parametrize("code", [0, errno.EINVAL, errno.EPERM, errno.EAFNOSUPPORT])
def test_whether_rules_look_at_the_class_alone(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A kernel that takes bits of ECN for a class compares them; what it refuses for another reason is told."""
    rules: list[KernelRule] = []

    def add(rule: KernelRule) -> None:
        if code:
            raise NetlinkError(code, "no")
        rules.append(rule)

    async def work(own: Kernel) -> None:
        monkeypatch.setattr(own._netlink, "add_rule", add)
        monkeypatch.setattr(own._netlink, "delete_rule", rules.remove)
        if code not in (0, errno.EINVAL):
            with pytest.raises(NetlinkError):
                await own.leads_by_class()
        else:
            assert await own.leads_by_class() is bool(code)

    attempt(work)
    assert rules == []


def test_rules_come_and_go_and_what_keeps_one_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rules: list[KernelRule] = []
    wanted = bulk_rules(IPv6Network("2001:db8::/32"))

    def add(rule: KernelRule) -> None:
        if rule == wanted[-1]:
            raise NetlinkError(errno.EPERM, "no")
        rules.append(rule)

    def delete(rule: KernelRule) -> None:
        if rule not in rules:
            raise NetlinkError(errno.ENOENT, "no")
        rules.remove(rule)

    async def work(own: Kernel) -> None:
        monkeypatch.setattr(own._netlink, "rules", lambda: rules)
        monkeypatch.setattr(own._netlink, "add_rule", add)
        monkeypatch.setattr(own._netlink, "delete_rule", delete)
        for _ in range(2):
            assert [fault.thing for fault in await own.lead(wanted)] == [wanted[-1]]
            assert rules == list(wanted[:-1])
        assert await own.lead(()) == []
        assert rules == []

    attempt(work)


def test_advice_for_any_error() -> None:
    assert all(kernel._advice(code) for code in (None, *range(200)))


def test_uplinks_are_the_addresses_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    up, running = IFF_UP, IFF_UP | IFF_RUNNING
    links = [KernelLink(n, f"eth{n}", flags, "") for n, flags in enumerate((0, up, running), 1)]
    addresses = [
        InterfaceAddress(ip_address(text), 24, index, scope, flags)
        for index, scope, text, flags in (
            (1, 0, "192.0.2.1", 0),
            (2, 0, "192.0.2.2", 0x80),
            (3, 0, "192.0.2.3", 0),
            (3, 0, "2001:db8::1", rtnetlink.IFA_F_TENTATIVE),
            (3, 0, "2001:db8::2", rtnetlink.IFA_F_DADFAILED),
            (3, 253, "fe80::1", 0),
            (3, 254, "127.0.0.1", 0),
            (9, 0, "192.0.2.4", 0),
        )
    ]
    found: list[object] = []

    async def work(own: Kernel) -> None:
        monkeypatch.setattr(own._netlink, "links", lambda: links)
        monkeypatch.setattr(own._netlink, "addresses", lambda: addresses)
        found.append(await own.uplinks())

    attempt(work)
    assert found == [{ip_address("192.0.2.2"): False, ip_address("192.0.2.3"): True}]


async def at_once() -> None:
    """babeld has seen that an interface is down."""


async def never() -> None:
    """It does not look."""
    await asyncio.Event().wait()


class Played:
    """An interface with the address that it got when its tunnel came up; it loses that with the tunnel."""

    def __init__(self, own: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.up, self.addresses = True, {ip_address("fe80::1")}
        for name in ("links", "set_link", "put_address"):
            monkeypatch.setattr(own._netlink, name, getattr(self, name))
        found = [InterfaceAddress(ip_address("fe80::1"), 64, 7, 253, 0)]
        monkeypatch.setattr(own._netlink, "addresses", lambda _: found)
        monkeypatch.setattr(own, "_index", lambda _: 7)

    def links(self) -> list[KernelLink]:
        return [KernelLink(7, "re6stnet1", IFF_UP if self.up else 0, "tun")]

    def set_link(self, index: int, *, up: bool) -> None:
        self.up = up
        if not up:
            self.addresses.clear()

    def put_address(self, address: IPv6Address, *_: object) -> None:
        self.addresses.add(address)


def test_the_address_on_links_is_what_was_said_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also on those that an earlier daemon left; what is there already is not touched."""
    done: list[tuple[str, str, int]] = []
    on = [InterfaceAddress(ip_address(ip), 32, index, 0, 0) for index, ip in ((1, "10.0.0.8"), (9, "10.0.0.8"))]

    def put(ip: IPv4Address, length: int, index: int, flags: int) -> None:
        if index == 6:
            raise NetlinkError(errno.EPERM, "no")
        assert (length, flags) == (29, IFA_F_NOPREFIXROUTE), "the whole subnet is not behind a tunnel"
        done.append(("put", str(ip), index))
        on.append(InterfaceAddress(ip, length, index, 0, flags))

    def delete(ip: IPv4Address, _length: int, index: int) -> None:
        done.append(("delete", str(ip), index))
        on[:] = [each for each in on if (each.address, each.index) != (ip, index)]

    async def work(own: Kernel) -> None:
        monkeypatch.setattr(own, "_index", lambda name: int(name) if int(name) < 7 else None)
        monkeypatch.setattr(rtnetlink, "make_tap", lambda _: None)
        monkeypatch.setattr("socket.if_nametoindex", int)
        for name, method in (
            ("put_address", put),
            ("delete_address", delete),
            ("addresses", lambda: list(on)),
            ("links", lambda: [KernelLink(index, f"{index}", 0, "") for index in range(10)]),
        ):
            monkeypatch.setattr(own._netlink, name, method)
        await own.make_tap("1")
        await own.address_links(IPv4Interface("10.0.0.1/29"))
        await own.address_links(IPv4Interface("10.0.0.1/29"))
        await own.make_tap("2")
        await own.address_links(IPv4Interface("10.0.0.9/29"))
        await own.address_links(None)
        own.state.wanted = own.state.wanted.with_tap("6").with_tap("7")
        await own.address_links(IPv4Interface("10.0.0.1/29"))

    attempt(work)
    first = [("delete", "10.0.0.8", 1), ("put", "10.0.0.1", 1), ("put", "10.0.0.1", 2)]
    moved = [("delete", "10.0.0.1", 1), ("delete", "10.0.0.1", 2), ("put", "10.0.0.9", 1), ("put", "10.0.0.9", 2)]
    gone = [("delete", "10.0.0.9", 1), ("delete", "10.0.0.9", 2)]
    assert done == [*first, *moved, *gone, ("put", "10.0.0.1", 1), ("put", "10.0.0.1", 2)]
    (refused,) = caplog.messages
    assert "10.0.0.1/29 on 6" in refused


def test_an_interface_that_is_made_anew_is_not_taken_for_one_that_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever looks later, who would end the tunnel that is on it now."""

    async def work(own: Kernel) -> None:
        monkeypatch.setattr(rtnetlink, "make_tap", lambda _: None)
        own.state.wanted = Wanted().with_tap("re6test-none", TapState(7))
        await own.make_tap("re6test-none")
        own.state.put_back()
        assert own.state.deleted == set()

    attempt(work)


def test_an_interrupted_interface_comes_up_again_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(own: Kernel) -> None:
        tap = Played(own, monkeypatch)
        own.state.wanted = Wanted().with_tap("re6stnet1", TapState(7, 1400))
        seen_up: list[bool] = []

        async def look() -> None:
            seen_up.append(tap.up)

        await own.bounce("re6stnet1", look)
        assert seen_up == [False]
        assert (tap.up, len(tap.addresses)) == (True, 1)
        assert own.state.wanted.taps == {"re6stnet1": TapState(7, 1400)}

    attempt(work)


def test_an_interface_whose_tunnel_never_came_up_stays_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up, without a carrier, it would get no link-local address, which babeld complains of again and again."""

    async def work(own: Kernel) -> None:
        tap = Played(own, monkeypatch)
        tap.set_link(7, up=False)
        await own.bounce("re6stnet1", at_once)
        assert not tap.up
        assert own.state.wanted.taps == {"re6stnet1": None}, "nor is it brought up later"

    attempt(work)


def test_also_if_whoever_interrupts_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a link-local address babeld would go round in circles."""

    async def work(own: Kernel) -> None:
        tap = Played(own, monkeypatch)
        task = asyncio.create_task(own.bounce("re6stnet1", never))
        while tap.up:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (tap.up, len(tap.addresses)) == (True, 1)

    attempt(work)


def test_a_kernel_that_does_not_tell_addresses_now_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(own: Kernel) -> None:
        tap = Played(own, monkeypatch)

        def refuse(_: object) -> None:
            raise NetlinkError(errno.EINTR, "dump interrupted")

        monkeypatch.setattr(own._netlink, "addresses", refuse)
        await own.bounce("re6stnet1", at_once)
        assert tap.up

    attempt(work)


@pytest.mark.parametrize(
    ("host", "way"), [("8.8.8.8", "re6stnet1"), ("2001:db8::1", "re6stnet-udp"), ("8.8.8.8", "eth0")]
)
def test_no_tunnel_goes_through_another_tunnel(monkeypatch: pytest.MonkeyPatch, host: str, way: str) -> None:
    monkeypatch.setattr(rtnetlink.Netlink, "route_to", lambda *_: KernelRoute(IPv6Network("::/0"), interface=7))
    monkeypatch.setattr("socket.if_indextoname", lambda _: way)

    async def work(own: Kernel) -> None:
        assert await own.leads_outside(host) is (way == "eth0")
        assert await own.leads_outside("re6st.example.com"), "a name is not looked up"

    attempt(work)
