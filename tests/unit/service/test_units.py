"""The systemd units: right, and as tight as ux.md wants them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from re6st import __version__
from re6st.linux.wireguard_go import SOCKETS
from re6st.service import rundir

DAEMON = Path(__file__).parents[3] / "daemon"
UNITS = ("re6stnet", "re6st-registry")


def settings(unit: str) -> list[tuple[str, str]]:
    """What a unit sets, in order; names may repeat."""
    lines = (DAEMON / f"{unit}.service").read_text().splitlines()
    return [(name, value) for name, found, value in (line.partition("=") for line in lines) if found and name[0] != "#"]


def analyze(*arguments: str) -> str:
    run = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    )
    return run.stdout + run.stderr


@pytest.mark.parametrize(
    ("unit", "worst"),
    [("re6stnet", 2.1), ("re6st-registry", 1.5), ("re6st-wait-online", 1.5), ("re6stnet-tunnels", 1.5)],
)
def test_the_units_stay_as_tight_as_they_are(unit: str, worst: float) -> None:
    output = analyze("security", "--offline=true", str(DAEMON / f"{unit}.service"))
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", output)
    assert found, output
    assert float(found[1]) <= worst, output


@pytest.mark.parametrize("path", sorted([*DAEMON.glob("*.service"), *DAEMON.glob("*.target")]), ids=lambda p: p.name)
def test_systemd_finds_no_fault_in_the_units(path: Path) -> None:
    output = analyze("verify", str(path))
    faults = [line for line in output.splitlines() if "is not executable" not in line and "Command 'man" not in line]
    assert faults == []


@pytest.mark.parametrize("unit", UNITS)
def test_no_service_is_root(unit: str) -> None:
    values = dict(settings(unit))
    users = [line.split()[1] for line in (DAEMON / "sysusers.conf").read_text().splitlines() if line.startswith("u ")]
    assert values["User"] == values["Group"] == unit
    assert unit in users
    assert values["AmbientCapabilities"] == values["CapabilityBoundingSet"]


def test_neither_service_reaches_the_secrets_of_the_other() -> None:
    owners = {}
    for line in (DAEMON / "tmpfiles.conf").read_text().splitlines():
        if line.startswith("z "):
            _, path, mode, user, _ = line.split()
            owners[path] = (mode, user)
    assert owners["/etc/re6stnet/ca.key"] == ("0600", "re6st-registry")
    assert owners["/etc/re6stnet/cert.key"] == ("0600", "re6stnet")
    hidden = {
        unit: {
            path.removeprefix("-")
            for name, value in settings(unit)
            if name == "InaccessiblePaths"
            for path in value.split()
        }
        for unit in UNITS
    }
    assert {"/etc/re6stnet/ca.key", "/var/lib/re6st-registry", "/var/log/re6st-registry"} <= hidden["re6stnet"]
    assert {"/etc/re6stnet/cert.key", "/var/lib/re6stnet", "/var/log/re6stnet"} <= hidden["re6st-registry"]


def test_a_directory_belongs_to_one_service_and_no_other_group_may_write_it() -> None:
    """Who is to look is in a group of its own: neither that nor the readers of logs may change anything."""
    lines = [line.split() for line in (DAEMON / "tmpfiles.conf").read_text().splitlines() if line.startswith("d ")]
    made = {path: (mode, user, group) for _, path, mode, user, group in lines}
    for unit in UNITS:
        assert made[f"/var/lib/{unit}"] == ("0700", unit, unit)
        mode, user, group = made[f"/var/log/{unit}"]
        assert (int(mode, 8) & 0o027, user, group) == (0, unit, "adm")
    for path, (mode, user, group) in made.items():
        if int(mode, 8) & 0o020:
            assert (path, user, group) in (
                ("/etc/re6stnet", "root", "re6stnet"),
                ("/run/wireguard", "root", "re6stnet"),
            )
            assert int(mode, 8) & 0o1000, "it may remove only what is its own"
    users = (DAEMON / "sysusers.conf").read_text()
    assert re.findall(r"^m (\S+) +(\S+)$", users, re.M) == [("re6st-registry", "re6stnet-look")]
    assert f"\ng {rundir.GROUP} " in users
    for unit in UNITS:
        assert not {"SupplementaryGroups"} & dict(settings(unit)).keys()


def test_a_node_may_start_wireguard_go_which_has_its_sockets_in_a_directory_of_root() -> None:
    lines = (DAEMON / "tmpfiles.conf").read_text().splitlines()
    made = {line.split()[1]: line.split()[2:] for line in lines if line.startswith("d ")}
    place = str(SOCKETS).removeprefix("/var")
    assert made[place] == ["1770", "root", dict(settings("re6stnet"))["Group"]]
    writable = [value.split() for name, value in settings("re6stnet") if name == "ReadWritePaths"]
    assert f"-{place}" in [path for paths in writable for path in paths]
    devices = [value for name, value in settings("re6stnet") if name == "DeviceAllow"]
    assert "/dev/net/tun rw" in devices


def test_the_debian_package_has_the_version_of_the_program() -> None:
    changelog = (DAEMON.parent / "debian/changelog").read_text()
    version = re.sub(r"[.]?(dev|rc)", r"~\1", __version__)
    assert changelog.startswith(f"re6stnet ({version}) ")


def test_private_keys_stay_out_of_a_git_of_etc(tmp_path: Path) -> None:
    """Also the one of a change of key that is not finished, which etckeeper's list of the older software lacks."""
    (line,) = (line.split() for line in (DAEMON / "tmpfiles.conf").read_text().splitlines() if line.startswith("f "))
    place = tmp_path / line[1].lstrip("/")
    place.parent.mkdir(parents=True)
    place.write_text(line[-1])
    keys = ("ca.key", "cert.key", "cert.key.next")
    for name in (*keys, "cert.crt", "re6stnet.conf"):
        (place.parent / name).touch()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shown = subprocess.run(
        ["git", "-C", str(tmp_path), "add", "-Avn"], check=True, capture_output=True, text=True
    ).stdout
    assert sorted(Path(name.split("'")[1]).name for name in shown.splitlines()) == [
        ".gitignore",
        "cert.crt",
        "re6stnet.conf",
    ]


def test_each_log_is_rotated_before_others_fill_the_disk_with_it() -> None:
    """Peers and strangers have lines written."""
    text = (DAEMON / "logrotate.conf").read_text()
    stanzas = re.findall(r"^(/[^{]*) \{\n(.*?)^\}", text, re.M | re.S)
    assert len(stanzas) >= 3
    assert all("maxsize " in stanza for _, stanza in stanzas), [names for names, _ in stanzas]
