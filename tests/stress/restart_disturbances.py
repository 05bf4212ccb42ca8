"""What others do to the machine and the network of restart_node.py."""

from __future__ import annotations

import contextlib
import signal

from re6st import cert
from testbed.namespace import BedError
from tests.stress.restart_trial import START, Trial

HOUR, DAY = 3600, 86400


def certificate_revoked(trial: Trial) -> None:
    """Its operator wants another one in its place."""
    serial = cert.load_pem((trial.node.host.etc / "cert.crt").read_bytes()).serial_number
    with contextlib.suppress(BedError):  # it is, and was not renewed yet
        trial.network.call("revoke", f"cn_or_serial={serial}")


def keys_rotated(trial: Trial) -> None:
    trial.network.call("updateHMAC")


def parameters_changed(trial: Trial) -> None:
    network = trial.network
    if status := network.stop_registry():
        trial.problem(f"the registry ended with status {status}")
    network.registry_options[-1] = str(trial.chance.choice((1, 2, 3)))
    network.start_registry()


def addresses_taken(trial: Trial) -> None:
    """By a network manager: all that is not in its files, or only IPv6."""
    host = trial.node.host
    for line in trial.chance.choice((["-6 address flush dev lo scope global"], ["address flush dev lo scope global"])):
        host.run(["ip", *line.split()], check=False)


def uplink_down_and_up(trial: Trial) -> None:
    host = trial.node.host
    host.namespace.ip("link set eth0 down")

    def up() -> None:
        host.namespace.ip("link set eth0 up")
        # The kernel forgot it when the link went down.
        host.run(["ip", "-6", "address", "replace", f"{host.ipv6}/64", "dev", "eth0", "nodad"])

    trial.wait(1.0)
    up()


def firewall_loaded(trial: Trial) -> None:
    """As by systemctl reload nftables."""
    trial.node.host.run(["nft", "flush", "ruleset"])


def settings_loaded(trial: Trial) -> None:
    """As by sysctl --system."""
    values = {"net/ipv6/conf/all/forwarding": 0, "net/ipv6/conf/default/accept_ra": trial.chance.choice((0, 1, 2))}
    trial.node.host.namespace.sysctl({**values, "net/ipv4/conf/all/rp_filter": trial.chance.choice((0, 1))})


def routes_taken(trial: Trial) -> None:
    trial.node.host.run(["ip", "-6", "route", "flush", "proto", "babel"], check=False)


def unreachable_route_taken(trial: Trial) -> None:
    trial.node.host.run(["ip", "-6", "route", "del", "unreachable", str(trial.network.network)], check=False)


def ipv6_switched_off(trial: Trial) -> None:
    """As by some hardening scripts."""
    host = trial.node.host
    host.namespace.sysctl({"net/ipv6/conf/all/disable_ipv6": 1})

    def on() -> None:
        host.namespace.sysctl({"net/ipv6/conf/all/disable_ipv6": 0})
        host.run(["ip", "-6", "address", "replace", f"{host.ipv6}/64", "dev", "eth0", "nodad"])

    trial.clean_up.append(on)


def address_renewed(trial: Trial) -> None:
    """By a DHCP client that takes it away for a moment."""
    host = trial.node.host
    host.namespace.ip(f"address del {host.address}/{host.length} dev eth0")
    trial.wait(3.0)
    host.namespace.ip(f"address add {host.address}/{host.length} dev eth0")


def clock_jumps(trial: Trial) -> None:
    trial.clock.write_text(str(trial.chance.choice((-HOUR / 2, HOUR, 20 * DAY))))
    trial.clean_up.append(lambda: trial.clock.unlink(missing_ok=True))


def clock_late_for_a_moment(trial: Trial) -> None:
    """As of a board without a battery for it, before the time service runs."""
    trial.clock.write_text(str(-DAY))
    trial.wait(START)
    trial.clock.unlink()


def disk_full(trial: Trial) -> None:
    path = trial.node.host.state / "fill"
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    trial.clean_up.append(lambda: path.unlink(missing_ok=True))


def interface_taken(trial: Trial) -> None:
    names = [name for name in trial.node.host.interfaces() if name.startswith("re6stnet")]
    if names:
        verb = trial.chance.choice(("down", "delete"))
        name = trial.chance.choice(sorted(names))
        words = ["delete", name] if verb == "delete" else ["set", name, "down"]
        trial.node.host.run(["ip", "link", *words], check=False)


def peers_reloaded(trial: Trial) -> None:
    """An upgrade of the whole network."""
    for other in trial.others:
        assert other.process is not None
        other.process.send_signal(signal.SIGHUP)


def nothing(trial: Trial) -> None:
    pass


DISTURBANCES = (
    certificate_revoked,
    keys_rotated,
    parameters_changed,
    addresses_taken,
    uplink_down_and_up,
    firewall_loaded,
    settings_loaded,
    routes_taken,
    unreachable_route_taken,
    ipv6_switched_off,
    address_renewed,
    clock_jumps,
    clock_late_for_a_moment,
    disk_full,
    interface_taken,
    peers_reloaded,
    nothing,
)
