"""What the node of restart_node.py finds when it starts: files that were damaged, or are of others."""

from __future__ import annotations

import contextlib
import sqlite3

from tests.stress.restart_trial import Trial


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
    trial.clean_up.append(lambda: made[0].unlink(missing_ok=True))


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
