"""A stand-in for the older software's package, re6st-node: its real programs, installed as that installs them.

The programs are those from PyPI (reference.py), which bring their Python packages along, as that package does; wrappers
make do with the babeld and OpenVPN of the machine. Units, scripts and the file for logrotate are what debhelper makes
for a package of two services, with the deletion of its state when it is purged.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from testbed.network import ROOT
from testbed.reference import OPENVPN_WRAPPER

NAME = "re6st-node"
UNITS = ("re6stnet", "re6st-registry")
_PRIVATE = "usr/lib/re6st-node"
_PROGRAM = f"""#!/bin/sh
PATH=/{_PRIVATE}/bin:$PATH
exec /{_PRIVATE}/venv/bin/python -I /{_PRIVATE}/venv/bin/NAME "$@"
"""
_BABELD = f"""#!/bin/sh
PYTHONPATH=/{_PRIVATE}/bed exec /usr/bin/python3 -m testbed.patched_babeld "$@"
"""
_UNIT = """[Unit]
After=network.target
ConditionPathExists=/etc/re6stnet/NAME.conf

[Service]
WorkingDirectory=/etc/re6stnet
ExecStart=/usr/sbin/NAME @NAME.conf
Restart=on-failure
RestartSec=3

[Install]
WantedBy=multi-user.target
"""
_SCRIPTS = {
    "postinst": """
for unit in re6stnet.service re6st-registry.service; do
    deb-systemd-helper unmask $unit >/dev/null || true
    if deb-systemd-helper --quiet was-enabled $unit; then
        deb-systemd-helper enable $unit >/dev/null || true
    else
        deb-systemd-helper update-state $unit >/dev/null || true
    fi
done
systemctl --system daemon-reload || true
deb-systemd-invoke start re6st-registry.service re6stnet.service || true
""",
    "prerm": """
[ "$1" != remove ] || deb-systemd-invoke stop re6stnet.service re6st-registry.service || true
""",
    # As debhelper did it until Debian 12, and what the older package deletes.
    "postrm": """
systemctl --system daemon-reload || true
for unit in re6stnet.service re6st-registry.service; do
    [ "$1" != remove ] || deb-systemd-helper mask $unit >/dev/null || true
    if [ "$1" = purge ]; then
        deb-systemd-helper purge $unit >/dev/null || true
        deb-systemd-helper unmask $unit >/dev/null || true
    fi
done
if [ "$1" = purge ] && [ ! -x /usr/sbin/re6stnet ]; then
    rm -rf /var/lib/re6stnet /var/log/re6stnet
fi
""",
}


def build(directory: Path, reference: Path, version: str = "0.657+slapos1") -> Path:
    """Make it, with the programs in the folder `reference`."""
    tree = directory / f"{NAME}-{version}"
    private = tree / _PRIVATE
    unwanted = shutil.ignore_patterns("pip*", "setuptools*", "__pycache__")
    shutil.copytree(reference.parent, private / "venv", symlinks=True, ignore=unwanted)
    for name in ("re6st", "testbed"):
        shutil.copytree(
            ROOT / name, private / "bed" / name, ignore=shutil.ignore_patterns("__pycache__", "web", "tree")
        )
    for name, text in (("babeld", _BABELD), ("openvpn", f"#!/bin/sh\n{OPENVPN_WRAPPER}")):
        _write(private / "bin" / name, text, 0o755)
    for name in ("re6stnet", "re6st-registry", "re6st-conf"):
        _write(tree / "usr/sbin" / name, _PROGRAM.replace("NAME", name), 0o755)
    for name in UNITS:
        _write(tree / f"lib/systemd/system/{name}.service", _UNIT.replace("NAME", name))
    _write(tree / "etc/logrotate.d/re6stnet", "/var/log/re6stnet/*.log {\n    weekly\n    missingok\n}\n")
    for name in ("etc/re6stnet", "var/lib/re6stnet", "var/log/re6stnet"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    control = f"Package: {NAME}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    _write(tree / "DEBIAN/control", control)
    _write(tree / "DEBIAN/conffiles", "/etc/logrotate.d/re6stnet\n")
    for name, text in _SCRIPTS.items():
        _write(tree / "DEBIAN" / name, f"#!/bin/sh\nset -e\n{text}", 0o755)
    made = directory / f"{NAME}_{version}.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(made)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return made


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
