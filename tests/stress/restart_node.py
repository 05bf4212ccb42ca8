"""Ends and starts one node of a busy network again and again, at random moments and in every way, on a machine that
others disturb.

    python -m tests.stress.restart_node [--seconds 600] [--seed N]

Each node tells of eight endpoints: IPv4 and IPv6, UDP and TCP, half of them dead. A supervisor starts the node again
whenever it has ended, as systemd does. After each round it must be back: it answers others and its operator. Prints
what it did as one line of JSON, and every problem found; the status is 1 if there is one. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random, randrange

from re6st import cert
from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, Pinger, wait_until
from testbed.control import Refused, ask
from testbed.endpoints import BlackHole, options
from testbed.namespace import BedError, command
from testbed.network import ROOT

FORMS = 120.0
BACK = 60.0
"""Seconds until the node must be back; it usually takes one to four. The machine may be busy."""
SLOW = 10.0
START = 3.0
"""Seconds of a start at any moment of which it may be ended."""
NOT_RESTARTED = frozenset((2, 76, 77, 78))
"""RestartPreventExitStatus of re6stnet.service: only a person brings such a node back."""
PACE = 0.05
SMALL_DISK = "8m"
"""Of the node's state, so that it can be filled."""
# Daemons of the node have a clock that is wrong by what a file says.
CLOCK = """
import datetime, time
from pathlib import Path

def wrong():
    try:
        return float(Path({path!r}).read_text())
    except (OSError, ValueError):
        return 0.0

right = time.time
time.time = lambda: right() + wrong()

class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=wrong())

datetime.datetime = Clock
"""
HOUR, DAY = 3600, 86400
SAID = ("Traceback", "unexpected error", "Task exception was never retrieved")


@dataclass
class Report:
    """What was done, and what was wrong."""

    seed: int
    count: Counter[str] = field(default_factory=Counter)
    back: list[float] = field(default_factory=list)
    """Seconds until the node was back, for each round."""
    slow: list[str] = field(default_factory=list)
    """Rounds in which that took long, and what was done in them."""
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        times = sorted(self.back) or [0.0]
        figures = {"median": times[len(times) // 2], "longest": times[-1]}
        return json.dumps(
            {
                "seed": self.seed,
                "rounds": len(self.back),
                **figures,
                "slow": self.slow,
                "done": dict(sorted(self.count.items())),
            }
        )


class Trial:
    """One network, and the node that is tried."""

    def __init__(self, bed: Bed, seed: int) -> None:
        self.bed = bed
        self.chance = Random(seed)
        self.report = Report(seed)
        registry = ["--ipv4", "10.42.0.0/16", "8", "--client-count", "2"]
        self.network = Network(bed, 4, registry_options=registry)
        hole = BlackHole(bed)
        for node in self.network.nodes:
            node.options = options(node.host, hole)
        *self.others, self.node = self.network.nodes
        self.log = self.node.host.log / "re6stnet.log"
        self.clock = self.node.host.directory / "wrong"
        directory = self.node.host.directory / "clock"
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(CLOCK.format(path=str(self.clock)))
        self.node.wrapper = ["env", f"PYTHONPATH={directory}:{ROOT}"]
        self._doing: list[str] = []
        self._clean_up: list[Callable[[], None]] = []
        """How to undo what others did to the machine."""

    # --- the supervisor ---

    def supervise(self) -> None:
        """Start the node where it does not run, as systemd would."""
        process = self.node.process
        if process is not None and (status := process.poll()) is not None:
            self.node.process = None
            self.report.count[f"ended with {status}"] += 1
            if status in NOT_RESTARTED:
                self.problem(f"it ended with status {status}, with which it is not restarted")
        if self.node.process is None:
            self.node.start()

    def problem(self, text: str) -> None:
        print(f"problem: {text}", file=sys.stderr, flush=True)
        self.report.problems.append(f"round {len(self.report.back) + 1}: {text}\n{self._tail()}")

    def _tail(self) -> str:
        files = (self.log, self.node.host.log / "re6stnet.out.log")
        return "\n".join(
            line for file in files if file.exists() for line in file.read_text(errors="replace").splitlines()[-25:]
        )

    def is_back(self) -> bool:
        """It answers others and reaches them, and its operator is heard."""
        self.supervise()
        try:
            ask(self.node.host.run_directory / CONTROL_SOCKET, "status")
        except (OSError, EOFError, Refused, ValueError):
            return False
        pairs = [(other, self.node) for other in self.others] + [(self.node, other) for other in self.others]
        return all(rtt is not None for rtt in self.network.ping(pairs, timeout=0.5).values())

    # --- a round ---

    def round(self) -> None:
        """Disturb the machine, end the node, and see that it comes back."""
        for _ in range(self.chance.randrange(3)):
            self._do(self.chance.choice(DISTURBANCES))
        self._do(self.chance.choice(ENDS))
        if self.node.process is None and self.chance.random() < 0.5:
            self._do(self.chance.choice(DAMAGES))
        began = time.monotonic()
        try:
            wait_until(self.is_back, BACK, "the node is back")
        except AssertionError:
            self.problem(f"it is not back after {BACK:g} s: {', '.join(self._doing)}")
        taken = round(time.monotonic() - began, 2)
        self.report.back.append(taken)
        if taken > SLOW:
            self.report.slow.append(f"{taken} s: {', '.join(self._doing)}")
            print(f"round {len(self.report.back)}: {self.report.slow[-1]}\n{self._tail()}", file=sys.stderr)
        while self._clean_up:
            self._clean_up.pop()()
        self._doing.clear()

    def _do(self, act: Callable[[Trial], None]) -> None:
        name = act.__name__.replace("_", " ")
        self.report.count[name] += 1
        self._doing.append(name)
        act(self)

    def run(self, seconds: float) -> Report:
        """Rounds for so many seconds, on a network that is busy meanwhile."""
        state = str(self.node.host.state)
        command("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", state)
        try:
            return self._run(seconds)
        finally:
            command("umount", "--lazy", state)

    def _run(self, seconds: float) -> Report:
        self.network.start()
        self.network.wait_connected(FORMS)
        first, second = self.others[:2]
        with Pinger(first.host, second.address, PACE).running(), Pinger(second.host, self.node.address, PACE).running():
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self.round()
        self._finish()
        return self.report

    def _finish(self) -> None:
        """It ends in good order, and leaves nothing; it has never said that it did not know on."""
        self.node.host.run(["nft", "flush", "ruleset"])
        wait_until(self.is_back, BACK, "the node is back", self.bed.tails)
        if status := self.node.stop(30):
            self.problem(f"at last it ended with status {status}")
        self.report.problems += [f"left over: {trace}" for trace in self.node.traces()]
        for node in self.network.nodes:
            for file in (node.host.log / "re6stnet.log", node.host.log / "re6stnet.out.log"):
                text = file.read_text(errors="replace") if file.exists() else ""
                for words in SAID:
                    if (at := text.find(words)) >= 0:
                        self.report.problems.append(f"{node.name} said: {text[at : at + 3000]}")
                        break
        self.network.check_alive()


# --- how it ends ---


def _wait(trial: Trial, seconds: float) -> None:
    """Any moment."""
    time.sleep(trial.chance.uniform(0, seconds))


def killed(trial: Trial) -> None:
    trial.node.kill()


def killed_while_it_starts(trial: Trial) -> None:
    trial.node.kill()
    for _ in range(trial.chance.randrange(1, 4)):
        trial.node.start()
        _wait(trial, START)
        trial.supervise()
        trial.node.kill()


def killed_with_its_programs(trial: Trial) -> None:
    """As when the machine has no memory left."""
    names = trial.chance.choice([("babeld",), ("openvpn",), ("babeld", "openvpn")])
    trial.node.kill()
    for name in names:
        trial.node.signal(name)


def programs_killed(trial: Trial) -> None:
    trial.node.signal(trial.chance.choice(["babeld", "openvpn"]))


def stopped(trial: Trial) -> None:
    if status := trial.node.stop(30):
        trial.problem(f"told to stop, it ended with status {status}")


def stopped_while_it_starts(trial: Trial) -> None:
    trial.node.kill()
    trial.node.start()
    _wait(trial, START)
    status = trial.node.stop(30)
    # Before it listens, the signal itself ends it.
    if status not in (0, -signal.SIGTERM):
        trial.problem(f"told to stop while it started, it ended with status {status}")


def restarted(trial: Trial) -> None:
    """As by systemctl restart: the tunnels wait for the next one."""
    trial.node.end(signal.SIGQUIT, 30)


def reloaded(trial: Trial) -> None:
    assert trial.node.process is not None
    trial.node.process.send_signal(signal.SIGHUP)
    _wait(trial, START)


def reloaded_and_killed(trial: Trial) -> None:
    reloaded(trial)
    trial.supervise()
    trial.node.kill()


# --- what it finds when it starts ---


def cache_cut_short(trial: Trial) -> None:
    cache = trial.node.host.state / "cache.db"
    if cache.exists():
        with cache.open("r+b") as file:
            file.truncate(trial.chance.randrange(cache.stat().st_size + 1))


def cache_of_noise(trial: Trial) -> None:
    (trial.node.host.state / "cache.db").write_bytes(trial.chance.randbytes(20_000))


def cache_from_the_future(trial: Trial) -> None:
    (trial.node.host.state / "cache.db").unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(trial.node.host.state / "cache.db")) as db:
        db.execute("CREATE TABLE config (name TEXT, value, new)")
        db.execute("CREATE TABLE peer (who)")
        db.commit()


def cache_gone(trial: Trial) -> None:
    for path in trial.node.host.state.glob("cache.db*"):
        path.unlink()


def foreign_files(trial: Trial) -> None:
    """A newer version, an older one, or somebody else left them."""
    run = trial.node.host.run_directory
    run.mkdir(mode=0o700, exist_ok=True)
    made = [run / name for name in ("a.pid", "re6stnet7.3.out", "babeld.conf.99999.tmp", "re6stnet1-9.sock")]
    for path in made:
        path.touch()
    trial._clean_up.append(lambda: made[0].unlink(missing_ok=True))


def notes_half_written(trial: Trial) -> None:
    run = trial.node.host.run_directory
    if run.exists():
        for path in sorted(run.iterdir()):
            if path.is_file() and path.suffix in (".json", ".pids", ".conf") and trial.chance.random() < 0.5:
                path.write_bytes(path.read_bytes()[: trial.chance.randrange(path.stat().st_size + 1)])


def certificates_half_written(trial: Trial) -> None:
    """What others put beside our certificate and never finished."""
    for name in ("cert.crt.new", "ca.crt.new"):
        (trial.node.host.etc / name).write_text("-----BEGIN CERT")


def cache_of_the_older_software(trial: Trial) -> None:
    """As after a downgrade to it, and an upgrade."""
    path = trial.node.host.state / "cache.db"
    if path.exists():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as db:
            rows = {"crl": "[]", "protocol": None, "unknown": "x"}
            db.execute("DELETE FROM config WHERE name LIKE 're6st%'")
            db.executemany("REPLACE INTO config VALUES (?, ?)", rows.items())
            db.execute("REPLACE INTO peer VALUES ('01x', 'nonsense')")
            db.commit()


def answers_half_written(trial: Trial) -> None:
    """What it remembers of the registry's answers."""
    path = trial.node.host.state / "hellos"
    if path.exists():
        path.write_bytes(path.read_bytes()[:-7])


DAMAGES = (
    cache_cut_short,
    cache_of_the_older_software,
    answers_half_written,
    cache_of_noise,
    cache_from_the_future,
    cache_gone,
    foreign_files,
    notes_half_written,
    certificates_half_written,
)


# --- what others do meanwhile ---


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

    _wait(trial, 1.0)
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

    trial._clean_up.append(on)


def address_renewed(trial: Trial) -> None:
    """By a DHCP client that takes it away for a moment."""
    host = trial.node.host
    host.namespace.ip(f"address del {host.address}/{host.length} dev eth0")
    _wait(trial, 3.0)
    host.namespace.ip(f"address add {host.address}/{host.length} dev eth0")


def clock_jumps(trial: Trial) -> None:
    trial.clock.write_text(str(trial.chance.choice((-HOUR / 2, HOUR, 20 * DAY))))
    trial._clean_up.append(lambda: trial.clock.unlink(missing_ok=True))


def clock_late_for_a_moment(trial: Trial) -> None:
    """As of a board without a battery for it, before the time service runs."""
    trial.clock.write_text(str(-DAY))
    _wait(trial, START)
    trial.clock.unlink()


def disk_full(trial: Trial) -> None:
    path = trial.node.host.state / "fill"
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    trial._clean_up.append(lambda: path.unlink(missing_ok=True))


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

ENDS = (
    killed,
    killed_while_it_starts,
    killed_with_its_programs,
    programs_killed,
    stopped,
    stopped_while_it_starts,
    restarted,
    reloaded,
    reloaded_and_killed,
)


def main() -> int:
    """The program; returns the exit status."""
    p = argparse.ArgumentParser(prog="python -m tests.stress.restart_node", description=__doc__)
    p.add_argument("--seconds", type=float, default=600.0)
    p.add_argument("--seed", type=int, default=randrange(1 << 32))
    args = p.parse_args()
    print(f"seed {args.seed}", file=sys.stderr, flush=True)
    with Bed() as bed:
        report = Trial(bed, args.seed).run(args.seconds)
        print(report.text())
        for problem in report.problems:
            print(problem)
        if report.problems:
            print(bed.tails(40))
    return bool(report.problems)


if __name__ == "__main__":
    sys.exit(main())
