"""How the node of restart_node.py ends: in every way."""

from __future__ import annotations

import signal

from tests.stress.restart_trial import START, Trial


def killed(trial: Trial) -> None:
    trial.node.kill()


def killed_while_it_starts(trial: Trial) -> None:
    trial.node.kill()
    for _ in range(trial.chance.randrange(1, 4)):
        trial.node.start()
        trial.wait(START)
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
    trial.wait(START)
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
    trial.wait(START)


def reloaded_and_killed(trial: Trial) -> None:
    reloaded(trial)
    trial.supervise()
    trial.node.kill()


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
