"""What re6st-status can say while no node runs: the certificate on the disk, the unit, what to do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from re6st.core.words import away, moment
from re6st.keys import pki

DIRECTORY = Path("/etc/re6stnet")
"""Where re6st-conf of the package writes the certificates."""
UNIT = "re6stnet.service"
PATIENCE = 3.0
"""Seconds to wait for systemctl."""


def look(directory: Path = DIRECTORY) -> dict[str, Any]:
    """The certificate and the unit; None where there is none."""
    return {"certificate": _certificate(directory), "unit": _unit()}


def _certificate(directory: Path) -> dict[str, Any] | None:
    path = directory / "cert.crt"
    found: dict[str, Any] = {"file": str(path)}
    try:
        own_pem = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return {**found, "error": error.strerror}
    from re6st import cert  # imported late, since it is slow to load
    from re6st.core.prefix import subnet

    try:
        own = cert.load_pem(own_pem, str(path))
        prefix = cert.prefix_of_cert(own)
        found |= {"cn": prefix.cn, "until": int(pki.end_of(own).timestamp())}
        found["starts"] = int(pki.begin_of(own).timestamp())
        ca_path = directory / "ca.crt"
        ca = cert.load_pem(cert.read_file(ca_path), str(ca_path))
        found["subnet"] = str(subnet(cert.network_of_ca(ca), prefix))
        cert.Trust(ca).check(own, datetime.now(UTC))
    except (cert.CertError, ValueError) as error:
        found["error"] = str(error)
    return found


def certificate() -> dict[str, Any] | str:
    """The certificate on the disk with all its fields; or why there is none."""
    from re6st import cert
    from re6st.client.certificate_report import describe

    try:
        ca, own = (cert.load_pem(cert.read_file(DIRECTORY / name), name) for name in ("ca.crt", "cert.crt"))
        return describe(ca, own)
    except cert.CertError as error:
        return str(error)


def _unit() -> dict[str, str] | None:
    """What systemd says about the unit; None without systemd, or without the unit."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    argv = [systemctl, "show", UNIT, "--property=LoadState,ActiveState,SubState,Result,UnitFileState"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    told = dict(each.partition("=")[::2] for each in done.stdout.splitlines() if "=" in each)
    if done.returncode or told.get("LoadState") != "loaded":
        return None
    return {"state": told["ActiveState"], "result": told.get("Result", ""), "enabled": told.get("UnitFileState", "")}


def remedy(found: Mapping[str, Any]) -> str:
    """What to do, as a sentence."""
    unit, certificate = found["unit"], found["certificate"]
    if certificate is None and unit is not None:
        return f"This machine has no certificate in {DIRECTORY}: join a network with re6st-conf first."
    if unit is None:
        return "Start it, or give its socket with --control (RUN/control.sock, where RUN is its option --run)."
    if unit["state"] in ("activating", "active"):
        return f"The unit is {unit['state']}: wait with re6st-status wait, or see journalctl -u re6stnet."
    if unit["state"] == "failed":
        return f"The unit failed ({unit['result']}): see journalctl -u re6stnet, then systemctl restart re6stnet."
    return "Start it: systemctl start re6stnet"


def words(found: Mapping[str, Any], now: float) -> Iterator[str]:
    """The rest, one fact on a line."""
    certificate, unit = found["certificate"], found["unit"]
    if certificate is None:
        yield f"  certificate  none in {DIRECTORY}"
    else:
        if "until" in certificate:
            until = certificate["until"]
            ended = "ended" if until < now else "until"
            where = f", subnet {certificate['subnet']}" if "subnet" in certificate else ""
            yield f"  certificate  {certificate['cn']}{where}, {ended} {moment(until)} ({away(until, now)})"
        if "error" in certificate:
            yield f"  !            {certificate['file']}: {certificate['error']}"
    if unit is not None:
        yield f"  unit         {UNIT}: {unit['state']}, {unit['enabled'] or 'not installed'} at boot"
