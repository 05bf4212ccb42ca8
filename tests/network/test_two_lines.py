"""A node with two lines to the Internet, each behind a router of its own (--uplink, or found by default routes)."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from testbed import Bed, Host, Network, Node, Router, wait_until
from testbed.links import WITH_WIREGUARD, wait_links
from testbed.pings import Pinger
from tests.network.test_remote_gateway import carriers
from tests.network.test_status import answer, status

FORMS = HEALS = 90
OPENVPN = ("--wireguard", "off")
"""Options of a node whose tunnels stay what they are: their connections are looked at."""
PACE = 0.05
LASTS = 2.0
"""Seconds in which something is looked at that shall stay as it is."""


class Home:
    """A machine behind two routers, and three nodes outside, which it reaches by both."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.first, self.second = bed.router("first"), bed.router("second")
        self.host: Host = self.first.host("double")
        self.second.uplink(self.host, "eth1")

    def form(self, *options: str, others: Sequence[str] = OPENVPN, registry: Sequence[str] = ()) -> Node:
        """The network is there, and last the machine with these options joins it."""
        members = [self.bed.host(f"node{number}") for number in range(1, 4)]
        self.network = Network(
            self.bed, hosts=[*members, self.host], registry_options=["--hello", "2", *registry], node_options=others
        )
        self.node = self.network.nodes[-1]
        # Nobody outside comes in: what it opens is all there is.
        self.node.options = [*others, "--ip", "any", "--max-clients", "0", *options]
        self.network.create()
        self.network.enrol()
        for node in self.network.nodes[:-1]:
            node.start()
        self.network.wait_connected(FORMS, self.network.nodes[:-1])
        self.node.start()
        self.network.wait_connected(FORMS)
        return self.node

    def by_policy(self, router: Router) -> None:
        """A default route as network managers make it for a second line: in a table of its own."""
        self.host.ip("route", "add", "default", "via", router.inside, "dev", "eth1", "table", "177", "metric", "200")


def rules(host: Host) -> list[str]:
    return [line for family in ("-4", "-6") for line in host.ip(family, "rule").splitlines()]


def lines(node: Node) -> dict[str, dict[str, object]]:
    """What re6st-status says of each; nothing while the node does not run."""
    return {each["name"]: each for each in answer(node, "uplinks").get("lines", ())}


def used(node: Node) -> Counter[str]:
    """How many tunnels that are up are said to go over each line."""
    found = answer(node, "tunnels").get("tunnels", ())
    return Counter(each["uplink"] for each in found if each["direction"] == "out" and each["up_seconds"] is not None)


def by_address(node: Node, home: Home) -> Counter[str]:
    """The same by the addresses that their connections really have."""
    named = {".".join(home.first.inside.split(".")[:3]): "one", ".".join(home.second.inside.split(".")[:3]): "two"}
    return Counter({named[ip.rpartition(".")[0]]: count for ip, count in carriers(node).items()})


def calm() -> None:
    """Let some time pass in which pings go on."""
    end = time.monotonic() + LASTS
    wait_until(lambda: time.monotonic() > end, 2 * LASTS + 5, "that lasts")


def given(home: Home) -> list[str]:
    """Both lines by their routers."""
    return ["--uplink", f"one,gateway={home.first.inside},up=80", "--uplink", f"two,gateway={home.second.inside},up=20"]


def test_tunnels_are_spread_over_the_lines_that_are_named_and_nothing_is_left(bed: Bed) -> None:
    home = Home(bed)
    before = rules(home.host), home.host.ip("route", "show", "table", "all")
    node = home.form(*given(home))

    def spread() -> bool:
        found = used(node)
        return found.keys() == {"one", "two"} and found == by_address(node, home)

    wait_until(spread, FORMS, "tunnels over both lines, each bound to the one that is told", bed.tails)
    assert {name: (each["state"], each["device"]) for name, each in lines(node).items()} == {
        "one": ("up", "eth0"),
        "two": ("up", "eth1"),
    }
    shown = status(node, "uplinks").stdout
    assert home.second.inside in shown
    assert "20 up" in shown
    assert "2 of 2 lines up: one, two" in status(node).stdout
    assert " UPLINK " in status(node, "tunnels").stdout

    # Others remove what the kernel was given.
    home.host.ip("rule", "del", "pref", "14603")
    home.host.ip("route", "flush", "table", "14602")
    wait_until(lambda: any(line.startswith("14603:") for line in rules(home.host)), 30, "the rule is back", bed.tails)
    wait_until(lambda: "eth1" in home.host.ip("route", "show", "table", "14602"), 30, "the table is back", bed.tails)

    # A daemon that is replaced leaves the tunnels where they are, and the next one knows it.
    held, had = used(node), set(node.pids("openvpn"))
    node.end(signal.SIGQUIT)
    assert any(line.startswith("14603:") for line in rules(home.host)), "packets keep their ways meanwhile"
    node.start()
    wait_until(lambda: used(node) >= held, FORMS, "the next daemon goes on with them, each over its line", bed.tails)
    assert had <= set(node.pids("openvpn"))

    assert node.stop() == 0
    assert (rules(home.host), home.host.ip("route", "show", "table", "all")) == before
    assert node.traces() == []


def test_a_killed_node_leaves_what_the_next_one_takes_over_or_removes(bed: Bed) -> None:
    home = Home(bed)
    before = rules(home.host)
    node = home.form(*given(home))
    node.kill()
    assert rules(home.host) != before
    node.signal("openvpn")
    node.signal("babeld")
    node.options = ["--ip", "any"]
    node.start()
    wait_until(lambda: rules(home.host) == before, 30, "rules are removed", bed.tails)
    wait_until(lambda: "eth0" in lines(node), FORMS, "the next one answers", bed.tails)
    assert not lines(node)["eth0"]["mark"], "there is one line, and nothing to choose"
    home.network.wait_connected(FORMS)


def test_lines_are_found_and_one_that_goes_and_comes_is_followed(bed: Bed) -> None:
    home = Home(bed)
    before = rules(home.host)
    node = home.form()
    assert rules(home.host) == before, "with one line nothing is touched"
    home.by_policy(home.second)
    wait_until(lambda: lines(node).keys() == {"eth0", "eth1"}, 10, "the second line is found", bed.tails)
    node.kill()
    node.signal("openvpn")
    node.signal("babeld")
    node.start()
    wait_until(lambda: used(node).keys() == {"eth0", "eth1"}, FORMS, "tunnels over both", bed.tails)
    home.host.ip("route", "flush", "table", "177")
    wait_until(lambda: lines(node)["eth1"]["state"] == "down", 10, "the second line is down", bed.tails)
    assert lines(node)["eth1"]["problem"] == "there is no default route by eth1"
    wait_until(lambda: used(node).keys() == {"eth0"}, HEALS, "all tunnels go over the other", bed.tails)
    home.network.wait_connected(HEALS)
    home.by_policy(home.second)
    wait_until(lambda: lines(node)["eth1"]["state"] == "up", 10, "the second line is up", bed.tails)


def test_what_is_wrong_with_a_line_is_said_and_ends_when_it_is_there(bed: Bed) -> None:
    home = Home(bed)
    nowhere = ["--uplink", "lte,dev=wwan7,metered", "--uplink", "dsl,gateway=192.168.77.1"]
    node = home.form("--uplink", f"one,gateway={home.first.inside}", *nowhere)
    assert {name: each["state"] for name, each in lines(node).items()} == {"one": "up", "lte": "down", "dsl": "down"}
    said = status(node, "check").stdout
    assert "uplink lte is down: there is no interface wwan7" in said
    assert "uplink dsl is down: no interface is in the network of its router 192.168.77.1" in said
    assert "uplink lte is down" in status(node, "netcheck").stdout
    home.host.ip("address", "add", "192.168.77.5/24", "dev", "eth1")
    wait_until(lambda: lines(node)["dsl"]["state"] == "up", 10, "it is taken when it is there", bed.tails)
    log = (node.host.log / "re6stnet.log").read_text()
    assert log.count("uplink lte is down: there is no interface wwan7") == 1
    assert "uplink dsl is up: eth1, by 192.168.77.1" in log


def test_another_network_from_dhcp_again_and_again_is_followed(bed: Bed) -> None:
    home = Home(bed)
    node = home.form(*given(home))
    wait_until(lambda: used(node).keys() == {"one", "two"}, FORMS, "tunnels over both", bed.tails)
    inside = home.second.inside.rpartition(".")[0]
    for last in (77, 78, 79):
        before = home.host.ip("-4", "-o", "address", "show", "dev", "eth1").split()[3]
        home.host.ip("address", "del", before, "dev", "eth1")
        home.host.ip("address", "add", f"{inside}.{last}/24", "dev", "eth1")
        wait_until(
            lambda last=last: lines(node)["two"]["addresses"][:1] == [f"{inside}.{last}"],  # type: ignore[misc,index]
            10,
            "the address is followed",
            bed.tails,
        )
        wait_until(
            lambda last=last: f"{inside}.{last}" in carriers(node),  # type: ignore[misc]
            HEALS,
            "a tunnel from the new address",
            bed.tails,
        )
        home.network.wait_connected(HEALS)
        assert f"{inside}.{last - 1}" not in carriers(node), "no tunnel is left with an address that is gone"
    assert any(f"from {inside}.79 lookup 14602" in line for line in rules(home.host))
    assert not any(f"from {inside}.77 " in line for line in rules(home.host))


class Pings:
    """From the node with two lines to each other one, all the time; `over` which line its tunnel to each goes now."""

    def __init__(self, home: Home) -> None:
        found = answer(home.node, "tunnels")["tunnels"]
        lines = {each["peer"]: each["uplink"] for each in found if each["direction"] == "out"}
        self.over = {node.prefix.cn: lines.get(node.prefix.cn) for node in home.network.nodes[:-1]}
        self.pingers = {node.prefix.cn: Pinger(home.host, node.address, PACE) for node in home.network.nodes[:-1]}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for pinger in self.pingers.values():
                stack.enter_context(pinger.running())
            yield

    def longest(self, line: str) -> float:
        """The longest gap of those over a line, in seconds."""
        return max((self.pingers[peer].longest for peer, over in self.over.items() if over == line), default=0.0)

    def __str__(self) -> str:
        return "; ".join(f"{peer} over {self.over[peer]}: {pinger}" for peer, pinger in self.pingers.items())


@pytest.mark.parametrize("carrier", ["openvpn", "wireguard"])
@pytest.mark.parametrize("loss", ["silent", "told"])
def test_a_line_dies_and_comes_back(
    bed: Bed, loss: str, carrier: str, record_property: Callable[[str, object], None]
) -> None:
    if carrier == "wireguard" and shutil.which("wireguard-go") is None:
        pytest.skip("no wireguard-go")
    home = Home(bed)
    node = home.form(*given(home), others=WITH_WIREGUARD if carrier == "wireguard" else OPENVPN)
    if carrier == "wireguard":
        wait_links(home.network, FORMS, [node])
    wait_until(lambda: used(node).keys() == {"one", "two"}, FORMS, "tunnels over both", bed.tails)
    dying = Pings(home)
    with dying.running():
        calm()
        if loss == "silent":
            home.host.cut("eth1")
        else:
            home.host.ip("link", "set", "eth1", "down")
        began = time.monotonic()
        wait_until(lambda: used(node).keys() == {"one"}, HEALS, "all tunnels go over the line left", bed.tails)
        moved = time.monotonic() - began
        wait_until(lambda: lines(node)["two"]["state"] != "up", 20, "the line is known to be dead", bed.tails)
        calm()
    print(f"{loss}, {carrier}: nothing is left on the dead line after {moved:.1f} s; {dying}")
    record_property("seconds", round(moved, 1))
    assert dying.longest("one") < 1.0, "the other line's traffic is not disturbed"
    assert dying.longest("two") < 10.0

    back = Pings(home)
    with back.running():
        calm()
        if loss == "silent":
            home.host.restore("eth1")
        else:
            home.host.ip("link", "set", "eth1", "up")
        began = time.monotonic()
        wait_until(lambda: used(node).keys() == {"one", "two"}, HEALS, "a tunnel is back on the line", bed.tails)
        print(f"{loss}, {carrier}: back on the line after {time.monotonic() - began:.1f} s")
        calm()
    print(f"{loss}, {carrier}, return: {back}")
    if carrier == "openvpn":
        assert all(pinger.lost == 0 for pinger in back.pingers.values()), str(back)
    else:  # where the new link has the name of an earlier one, babeld is started anew, which loses a few packets
        assert max(pinger.longest for pinger in back.pingers.values()) < 1.0, str(back)
    assert node.stop() == 0
    assert node.traces() == []


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")
def test_wireguard_links_are_bound_to_the_lines_of_the_tunnels_that_they_replace(bed: Bed) -> None:
    home = Home(bed)
    node = home.form(*given(home), others=WITH_WIREGUARD)
    wait_links(home.network, FORMS, [node])
    wait_until(lambda: used(node).keys() == {"one", "two"}, FORMS, "links over both", bed.tails)

    def places() -> Counter[str]:
        """Where peers have the other ends of their links: at which router."""
        outside = {home.first.outside.address: "one", home.second.outside.address: "two"}
        found = (each for peer in home.network.nodes[:-1] for each in answer(peer, "tunnels")["tunnels"])
        return Counter(outside[each["remote"]] for each in found if each["remote"] in outside)

    wait_until(lambda: places() == used(node), FORMS, "peers see each link at the router of its line", bed.tails)

    held = used(node)
    node.end(signal.SIGQUIT)
    node.start()
    wait_until(lambda: used(node) >= held, FORMS, "the next daemon knows over which line each goes", bed.tails)
    wait_links(home.network, FORMS, [node])
    home.host.cut("eth1")
    wait_until(lambda: used(node).keys() == {"one"}, HEALS, "all go over the line left", bed.tails)
    home.network.wait_connected(HEALS)
    assert node.stop() == 0
    assert node.traces() == []


def test_in_the_second_plane_tunnels_cost_what_is_said_of_their_line_and_are_not_measured(bed: Bed) -> None:
    home = Home(bed)
    words = ["--uplink", f"one,gateway={home.first.inside},up=500,down=600"]
    words += ["--uplink", f"two,gateway={home.second.inside},up=60,down=70"]
    node = home.form(*words, registry=["--planes", "2"])

    def costs() -> set[tuple[str, int | None, float | None]]:
        known = answer(node)["bulk"]["links"]
        found = [each for each in answer(node, "tunnels")["tunnels"] if each["uplink"] and each["state"] == "up"]
        bulk = [(each["uplink"], known.get(each["interface"])) for each in found]
        return {(name, each["cost"], each["mbits"]) if each else (name, None, None) for name, each in bulk}

    right = {("one", 512, 500.0), ("two", 4096, 60.0)}
    wait_until(lambda: costs() == right, FORMS, "each costs what its line carries", bed.tails)
    assert answer(node)["bulk"]["trains"] == 0


def test_the_only_tunnel_of_client_leaves_a_line_that_dies(bed: Bed) -> None:
    home = Home(bed)
    members = [bed.host(f"node{number}") for number in range(1, 4)]
    remotes = ";".join(f"{host.address},1194,tcp" for host in members)
    network = Network(bed, hosts=[*members, home.host], registry_options=["--hello", "2"])
    node = network.nodes[-1]
    node.options = ["--client", remotes, *given(home)]
    network.start()
    network.wait_connected(FORMS)
    wait_until(lambda: len(used(node)) == 1, FORMS, "one tunnel, over one line", bed.tails)
    ((name, _),) = used(node).items()
    interface, other = ("eth0", "two") if name == "one" else ("eth1", "one")
    home.host.ip("link", "set", interface, "down")
    wait_until(lambda: used(node).keys() == {other}, HEALS, "it goes over the other line", bed.tails)
    network.wait_connected(HEALS)
    assert node.stop() == 0
    assert node.traces() == []
