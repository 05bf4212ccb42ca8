"""The Debian package on whole machines, with systemd: installed, joined, upgraded, removed, purged.

So the units are shown with all that they forbid: the programs run here as users of their own, with few capabilities,
behind the filter of system calls, on files they cannot write.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import Bed
from testbed.machine import Machine
from testbed.network import NETWORK
from testbed.wait import wait_until

JOINED = 60
"""Seconds; usual: 6."""
TIDY = 30


def install(machine: Machine, package: Path) -> str:
    shutil.copy(package, machine.path("/tmp/re6stnet.deb"))
    return machine.run("dpkg", "--install", "/tmp/re6stnet.deb")


def newer(package: Path, directory: Path) -> Path:
    """The same package, as a later version."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", r"\g<0>+later", control.read_text(), flags=re.M))
    later = directory / "later.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, later], check=True, stdout=subprocess.DEVNULL
    )
    return later


@pytest.fixture(scope="module")
def machines(package: Path) -> Iterator[tuple[Machine, Machine]]:
    """A registry with its node, and a node that joined: each by the commands that its operator is told."""
    with Bed() as bed, Machine(bed.host("first")) as first, Machine(bed.host("second")) as second:
        for machine in (first, second):
            install(machine, package)
        first.run("re6st-registry", "init", "--network", str(NETWORK))
        first.run("systemctl", "enable", "--now", "re6st-registry")
        url = f"http://{first.host.address}/"
        for machine in (first, second):
            line = first.run("re6st-registry", "invite", "somebody@example.org", "--url", url)
            join = re.search(r"re6st-conf join '?(\S+?)'?$", line, re.M)
            assert join, line
            machine.run("re6st-conf", "join", join[1])
            machine.run("systemctl", "enable", "--now", "re6stnet")

        def logs() -> str:
            return bed.tails() + "".join(m.journal("re6stnet") + m.journal("re6st-registry") for m in (first, second))

        wait_until(lambda: reaches(second, first), JOINED, "the two machines reach each other", logs)
        yield first, second


def own_address(machine: Machine) -> str:
    found = re.search(r"inet6 (2001:db8:42:\S+)/", machine.run("ip", "-6", "address", "show", "dev", "lo"))
    return found[1] if found else ""


def reaches(one: Machine, other: Machine) -> bool:
    address = own_address(other)
    return bool(address) and one.try_run(["ping", "-c", "1", "-W", "1", address]).returncode == 0


def status(pid: int) -> dict[str, str]:
    """What the kernel says of a process (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_package_has_no_fault(package: Path) -> None:
    """None of the three that are built, by Debian's own checks; what is left aside is in debian/*.lintian-overrides."""
    built = sorted(package.parent.glob("*.deb"))
    assert {path.name.partition("_")[0] for path in built} == {"re6st-node", "re6st-node-py3", "re6stnet"}
    done = subprocess.run(["lintian", "--fail-on", "error,warning", *built], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_programs_run_confined(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    node = second.pids("re6stnet")
    assert {"re6stnet", "babeld", "openvpn"} <= set(node.values())
    network = 1 << 12 | 1 << 10 | 1 << 13  # CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_NET_RAW
    for machine, unit, capabilities in ((second, "re6stnet", network), (first, "re6st-registry", 1 << 10)):
        user = machine.run("id", "-u", unit).strip()
        for pid in machine.pids(unit):
            seen = status(pid)
            assert set(seen["Uid"].split()) == {user}
            assert int(seen["CapBnd"], 16) == int(seen["CapEff"], 16) == capabilities
            assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    assert "Operation not permitted" not in second.journal("re6stnet") + first.journal("re6st-registry")
    assert "Permission denied" not in second.journal("re6stnet") + first.journal("re6st-registry")


def test_the_registry_asks_the_node_beside_it(machines: tuple[Machine, Machine]) -> None:
    first, _ = machines
    wait_until(
        lambda: len(re.findall(r"^\d+/16 .*\bago\b", first.run("re6st-registry", "nodes"), re.M)) == 2,
        TIDY,
        "both nodes seen",
        lambda: first.run("re6st-registry", "nodes") + first.journal("re6st-registry"),
    )
    # And by the control socket: what it has forgotten, when its database was restored.
    as_registry = ["runuser", "--user", "re6st-registry", "--", "re6st-status", "neighbours"]
    assert first.try_run(as_registry).returncode == 0


def test_a_reload_keeps_tunnels_and_the_name_of_the_program(machines: tuple[Machine, Machine]) -> None:
    _, second = machines
    before = second.pids("re6stnet")
    second.run("systemctl", "reload", "re6stnet")
    count = "taking over babeld"
    wait_until(lambda: count in second.journal("re6stnet"), TIDY, "a daemon anew", lambda: second.journal("re6stnet"))
    after = second.pids("re6stnet")
    gone = {pid: name for pid, name in before.items() if after.get(pid) != name}
    assert list(gone.values()) in ([], ["openvpn"]), "but of a tunnel that both of them opened, one is closed"
    assert "(re6stnet)" in second.run("systemctl", "status", "--lines=0", "re6stnet")


def broken_restart(machine: Machine) -> set[int]:
    """Restart a node with a certificate that is none, and mend that again; what runs without a daemon then."""
    path = machine.path("/etc/re6stnet/cert.crt")
    good = path.read_bytes()
    path.write_text("x\n")
    before = {pid for pid, name in machine.pids("re6stnet").items() if name in ("babeld", "openvpn")}
    assert machine.try_run(["systemctl", "restart", "re6stnet"]).returncode
    assert "cert.crt: not an RSA certificate in PEM form" in machine.journal("re6stnet")
    path.write_bytes(good)
    assert set(machine.pids("re6stnet")) == before
    return before


def test_a_restart_that_fails_keeps_the_tunnels_and_a_stop_ends_them(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    left = broken_restart(second)
    assert reaches(second, first)
    second.run("systemctl", "start", "re6stnet")
    assert left <= set(second.pids("re6stnet")), "the next daemon goes on with them"
    assert reaches(second, first)
    assert broken_restart(second)
    second.run("systemctl", "stop", "re6stnet")
    wait_until(lambda: not second.pids("re6stnet"), TIDY, "neither OpenVPN nor babeld is left")

    def left_on_the_machine() -> str:
        shown = second.run("ip", "-6", "address") + second.run("ip", "-6", "route")
        return "\n".join(re.findall(r"^.*2001:db8:42.*|^\d+: re6stnet.*", shown, re.M))

    wait_until(
        lambda: not left_on_the_machine(),
        TIDY,
        "no address, route or interface is left",
        lambda: left_on_the_machine() + second.journal("re6stnet-tunnels"),
    )
    second.run("systemctl", "start", "re6stnet")
    wait_until(lambda: reaches(second, first), JOINED, "it is back", lambda: second.journal("re6stnet"))


def test_the_node_does_not_reach_the_key_of_the_authority(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    for machine, unit, own, foreign in (
        (first, "re6stnet", "cert.key", "ca.key"),
        (first, "re6st-registry", "ca.key", "cert.key"),
    ):
        as_user = ["setpriv", f"--reuid={unit}", f"--regid={unit}", "--init-groups", "cat"]
        assert machine.try_run([*as_user, f"/etc/re6stnet/{own}"]).returncode == 0
        assert machine.try_run([*as_user, f"/etc/re6stnet/{foreign}"]).returncode != 0
    # Nor its database, its log and the operator's socket, also where permissions were wrong.
    for unit, foreign in (("re6stnet", "re6st-registry"), ("re6st-registry", "re6stnet")):
        main = first.run("systemctl", "show", "--property=MainPID", "--value", unit).strip()
        for place in ("/var/lib", "/var/log"):
            hidden = first.run("nsenter", f"--target={main}", "--mount", "stat", "-c", "%a", f"{place}/{foreign}")
            assert hidden.strip() == "0"
    # A certificate is renewed in its place, by the service, behind all its walls.
    main = second.run("systemctl", "show", "--property=MainPID", "--value", "re6stnet").strip()
    inside = ["nsenter", f"--target={main}", "--mount", "setpriv", "--reuid=re6stnet", "--regid=re6stnet"]
    renew = "cd /etc/re6stnet && cp cert.crt cert.crt.new && mv cert.crt.new cert.crt && ! touch /usr/x"
    second.run(*inside, "--clear-groups", "sh", "-c", renew)


def holds(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    return any(each.exists() and each.samefile(path) for each in Path(f"/proc/{pid}/fd").iterdir())


def test_logs_are_rotated(machines: tuple[Machine, Machine]) -> None:
    first, _ = machines
    log = first.path("/var/log/re6stnet/babeld.log")
    wait_until(log.exists, TIDY, "a log of babeld")
    with log.open("a") as file:
        file.write("a line\n")
    tunnel = first.path("/var/log/re6stnet/re6stnet-tcp.log")  # as OpenVPN would write it, and has it open
    with tunnel.open("a") as file:
        file.write("a line\n")
        file.flush()
        os.chown(tunnel, log.stat().st_uid, log.stat().st_gid)
        said = first.run("logrotate", "--force", "/etc/logrotate.d/re6st")
        file.write("another line\n")
    assert "error" not in said
    assert (tunnel.with_name("re6stnet-tcp.log.1").read_text(), tunnel.read_text()) == ("a line\n", "another line\n")
    babeld = next(pid for pid, name in first.pids("re6stnet").items() if name == "babeld")
    wait_until(lambda: log.exists() and holds(babeld, log), TIDY, "babeld writes to the new log")
    assert str(log.stat().st_uid) == status(babeld)["Uid"].split()[0]
    assert log.with_name("babeld.log.1").exists()
    assert first.run("systemctl", "is-active", "re6stnet").strip() == "active"


def test_an_upgrade_keeps_the_tunnels(machines: tuple[Machine, Machine], package: Path, tmp_path: Path) -> None:
    first, second = machines
    before = second.pids("re6stnet")
    steady = f"echo $$; exec ping -q -i 0.1 -W 1 -w {JOINED} {own_address(first)}"
    with subprocess.Popen(second.argv(["sh", "-c", steady]), stdout=subprocess.PIPE, text=True) as pinging:
        assert pinging.stdout is not None
        pid = pinging.stdout.readline().strip()
        install(second, newer(package, tmp_path))
        wait_until(
            lambda: second.run("systemctl", "is-active", "re6stnet").strip() == "active", TIDY, "the node in service"
        )
        assert reaches(second, first)
        second.run("kill", "-INT", pid)
        assert " 0% packet loss" in pinging.communicate(timeout=60)[0]
    tunnels = {pid for pid, name in before.items() if name == "openvpn"}
    assert tunnels <= set(second.pids("re6stnet"))
    assert "+later" in second.run("dpkg-query", "--show", "re6stnet")


BEFORE = """
systemctl stop re6st-registry re6stnet
useradd alice
for each in alice re6st-registry; do gpasswd --add $each re6stnet; done
gpasswd --delete re6st-registry re6stnet-look
mv /var/lib/re6st-registry/registry.db* /var/lib/re6stnet/
rmdir /var/lib/re6st-registry
for each in lib log; do chown root:re6stnet /var/$each/re6stnet; chmod 0770 /var/$each/re6stnet; done
echo 'db /var/lib/re6stnet/registry.db' >>/etc/re6stnet/re6st-registry.conf
"""
"""What an installation looks like that versions before made: one directory for both services and the operators."""


def groups(machine: Machine, name: str) -> set[str]:
    """Who was put into a group."""
    return set(filter(None, machine.run("getent", "group", name).strip().split(":")[3].split(",")))


def test_an_installation_of_before_is_moved_over_by_the_upgrade(
    machines: tuple[Machine, Machine], package: Path, tmp_path: Path
) -> None:
    first, second = machines
    cns = re.compile(r'"cn": "[^"]*"')
    known = sorted(cns.findall(first.run("re6st-registry", "nodes", "--json")))
    assert len(known) >= 2
    first.run("sh", "-euc", BEFORE)
    install(first, newer(package, tmp_path))
    assert "registry" not in first.run("ls", "-A", "/var/lib/re6stnet")
    for name, mode in (("lib", "700"), ("log", "2750")):
        for user in ("re6stnet", "re6st-registry"):
            assert first.run("stat", "-c", "%U %a", f"/var/{name}/{user}").split() == [user, mode]
    assert (groups(first, "re6stnet"), groups(first, "re6stnet-look")) == (set(), {"alice", "re6st-registry"})
    first.run("systemctl", "start", "re6st-registry", "re6stnet")
    assert sorted(cns.findall(first.run("re6st-registry", "nodes", "--json"))) == known
    wait_until(
        lambda: reaches(second, first), JOINED, "the two machines reach each other", lambda: first.journal("re6stnet")
    )
    # And where the upgrade was interrupted, and the machine started again: before the registry serves.
    first.run("systemctl", "stop", "re6st-registry")
    first.run("sh", "-euc", "mv /var/lib/re6st-registry/registry.db /var/lib/re6stnet/")
    first.run("systemctl", "start", "re6st-registry")
    assert sorted(cns.findall(first.run("re6st-registry", "nodes", "--json"))) == known


def test_who_may_look_may_change_nothing(machines: tuple[Machine, Machine]) -> None:
    first, _ = machines
    alice = ["runuser", "--user", "alice", "--"]
    wait_until(lambda: first.try_run([*alice, "re6st-status"]).returncode == 0, TIDY, "she sees the status")
    states = [f"/var/{name}/{user}" for name in ("lib", "log") for user in ("re6stnet", "re6st-registry")]
    seen = first.try_run([*alice, "find", "/etc/re6stnet", *states, "/run/re6stnet", "-writable"]).stdout
    assert seen == ""
    assert first.try_run([*alice, "re6st-status", "log", "3"]).returncode != 0
    for secret in ("/etc/re6stnet/cert.key", "/etc/re6stnet/re6st-registry.conf", "/var/log/re6stnet/babeld.log"):
        assert first.try_run([*alice, "cat", secret]).returncode != 0


BOUND = """[Unit]
Requires=re6st-online.target
After=re6st-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/python3 -c "import socket; socket.create_server(('{address}', 4242), family=socket.AF_INET6)"
"""


def test_a_service_binds_to_the_address_at_its_first_try(machines: tuple[Machine, Machine]) -> None:
    _, second = machines
    address = own_address(second)
    second.path("/etc/systemd/system/bound.service").write_text(BOUND.format(address=address))
    second.run("systemctl", "daemon-reload")
    second.run("systemctl", "stop", "re6stnet")
    assert own_address(second) == ""
    second.run("systemctl", "start", "bound")  # brings the node, and waits
    assert own_address(second) == address
    assert second.run("systemctl", "is-active", "re6stnet", "re6st-online.target").split() == ["active", "active"]
    since = second.run("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "bound")
    second.run("systemctl", "restart", "re6stnet")  # the address stays, and so do those who use it
    assert second.run("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "bound") == since


def means(machine: Machine) -> set[str]:
    """What its tunnels are carried by."""
    listed = json.loads(machine.run("re6st-status", "tunnels", "--json"))["tunnels"]
    return {each["carrier"] for each in listed if each["state"] == "up"}


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")
def test_the_services_have_links_of_wireguard_which_a_reload_keeps_and_a_stop_ends(
    machines: tuple[Machine, Machine],
) -> None:
    first, second = machines
    for machine in machines:
        options = machine.path("/etc/re6stnet/re6stnet.conf")
        options.write_text(f"{options.read_text()}\nwireguard any\n")
        machine.run("systemctl", "restart", "re6stnet")

    def both(carrier: str) -> bool:
        return means(first) == means(second) == {carrier}

    def journals() -> str:
        return first.journal("re6stnet") + second.journal("re6stnet")

    wait_until(lambda: both("wireguard"), JOINED, "their tunnel is a WireGuard link", journals)
    assert reaches(second, first)
    for machine in machines:
        (pid,) = (pid for pid, name in machine.pids("re6stnet").items() if name == "wireguard-go")
        user = machine.run("id", "-u", "re6stnet").strip()
        assert set(status(pid)["Uid"].split()) == {user}
    carried = {pid for pid, name in second.pids("re6stnet").items() if name == "wireguard-go"}
    taken = second.journal("re6stnet").count("taking over babeld")
    second.run("systemctl", "reload", "re6stnet")
    again = "taking over babeld"
    wait_until(lambda: second.journal("re6stnet").count(again) > taken, TIDY, "a daemon anew", journals)
    assert carried <= set(second.pids("re6stnet"))
    assert reaches(second, first)
    second.run("systemctl", "stop", "re6stnet")
    wait_until(lambda: not second.pids("re6stnet"), TIDY, "nothing of it runs", journals)
    assert "re6stnet-wg" not in second.run("ip", "-o", "link")
    assert second.run("ls", "/run/wireguard") == ""
    for machine in machines:
        options = machine.path("/etc/re6stnet/re6stnet.conf")
        options.write_text(options.read_text().replace("wireguard any\n", ""))
        machine.run("systemctl", "restart", "re6stnet")
    wait_until(lambda: both("openvpn") and reaches(second, first), JOINED, "OpenVPN carries it again", journals)


def test_removed_and_purged(machines: tuple[Machine, Machine]) -> None:
    """Last: nothing of the package is left, and the keys go with a purge only."""
    _, second = machines
    second.run("dpkg", "--remove", "re6stnet")
    assert second.pids("re6stnet") == {}
    assert "re6stnet" not in second.run("ip", "link")
    assert not second.path("/usr/lib/re6stnet").exists()
    for name in ("cert.key", "cert.crt", "ca.crt", "re6stnet.conf"):
        assert second.path(f"/etc/re6stnet/{name}").exists()
    assert second.path("/var/lib/re6stnet/cache.db").exists()
    second.run("dpkg", "--purge", "re6stnet")
    places = ("/etc", "/usr/bin", "/usr/share", "/lib", "/var", "/run")
    # The trees of `./run on` are of the machine beneath.
    outside = ("-path", "/var/cache/re6st-trees", "-prune", "-o")
    left = second.run("find", *places, *outside, "-name", "*re6st*", "-print").split()
    assert left == []
