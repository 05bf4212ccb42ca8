"""re6st-status bugreport: writes one text with everything that helps to find a fault, limited in size, and without
secrets.

It has versions, the node's answers, the findings of netcheck, the unit, and the last lines of the logs; if no node
runs, those that can be had.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv6Network, ip_address
from itertools import islice
from pathlib import Path
from typing import Any

from re6st import PROTOCOL, __version__
from re6st.cli import machine
from re6st.cli.status import down, netcheck
from re6st.cli.status.output import HEALTHY, UNHEALTHY, end, print_json
from re6st.client.registry_client import RegistryError, parse_url
from re6st.core.words import clock, size
from re6st.linux import disk
from re6st.noded.hooks import HIDDEN
from re6st.service.control_client import Trouble, connect
from re6st.view.findings import lines_of
from re6st.view.pseudonyms import Pseudonyms
from re6st.view.screen import paint

ROUTES, EVENTS, JOURNAL_LINES = 200, 500, 400
SECTION_LIMIT = 96 << 10
"""Bytes of one section; there are about twenty."""
PATIENCE = 10.0
"""Seconds for journalctl."""
LOG_DIRECTORY = Path("/var/log/re6stnet")
LOGS = "re6stnet.log", "babeld.log", "re6stnet-plane-*.log"
LOGS_LIMIT = 6

_ASKED: Mapping[str, Mapping[str, int]] = {
    **{operation: {} for operation in ("status", "options", "certificate", "tunnels", "neighbours", "peers")},
    "routes": {"limit": ROUTES},
    "events": {"limit": EVENTS},
}

Section = tuple[str, str]


def run(options: argparse.Namespace) -> int:
    """Write the report, or print it."""
    when = time.time()
    print("looking at the node, the machine and the logs...", file=sys.stderr)
    told = _ask(options.control)
    sections = [*_machine(), *_node(told), _netcheck(options.control), *_unit(), *_logs(told)]
    text = report(sections, when)
    if options.anonymise:
        text = _pseudonyms(told).apply(text)
    if options.output == "-":
        print_json({"report": text}) if options.json else print(text, end="")
        return HEALTHY
    path = Path(options.output or time.strftime("re6st-bugreport-%Y%m%dT%H%M%SZ.txt", time.gmtime(when)))
    try:
        disk.write_private(path, text.encode())
    except FileExistsError:
        end(options, f"{path}: there is such a file. Choose another --output.", UNHEALTHY)
    except OSError as error:
        end(options, f"{path}: {error.strerror}. Choose another --output.", UNHEALTHY)
    if options.json:
        print_json({"file": str(path), "bytes": len(text.encode()), "anonymised": options.anonymise})
    else:
        print(f"{path}: {size(len(text.encode()))}, for your eyes only (0600). {_advice(options.anonymise)}")
    return HEALTHY


def _advice(anonymised: bool) -> str:
    if anonymised:
        return "Addresses, nodes and e-mails are replaced; read it before you send it."
    return "It has addresses and names: read it before you send it, or use --anonymise."


def report(sections: list[Section], when: float) -> str:
    """The text; sections that are too long are cut."""
    parts = [f"re6st-status bugreport, {clock(when)}\n"]
    for title, text in sections:
        kept = text.encode("utf-8", "replace")[:SECTION_LIMIT].decode("utf-8", "ignore")
        end = "" if len(kept) == len(text) else "\n[cut here]"
        parts.append(f"== {title} ==\n{kept.rstrip()}{end}\n")
    return "\n".join(parts)


def _ask(control: Path) -> dict[str, Any]:
    """The answers of the node by operation; missing ones are `error`."""
    told: dict[str, Any] = {}
    try:
        with connect(control) as connection:
            for operation, arguments in _ASKED.items():
                told[operation] = connection.ask(operation, **arguments)
    except Trouble as error:
        told["error"] = str(error)
    return told


# --- sections ---


def _machine() -> Iterator[Section]:
    lines = [
        f"re6st {__version__} (protocol {PROTOCOL})",
        *(f"{name} {machine.version_of(name) or 'not found'}" for name in machine.PROGRAMS),
        f"Python {platform.python_version()}",
        f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
    ]
    with suppress(OSError):
        lines.append(platform.freedesktop_os_release().get("PRETTY_NAME", ""))
    yield "versions", "\n".join(lines)


def _node(told: Mapping[str, Any]) -> Iterator[Section]:
    for operation in _ASKED:
        if operation in told:
            yield operation, json.dumps(told[operation], indent=1)
    if "error" in told:
        yield "node", told["error"]
        found = down.certificate()
        yield "certificate", found if isinstance(found, str) else json.dumps(found, indent=1)
    path = down.DIRECTORY / netcheck.OPTION_FILE
    with suppress(OSError):
        yield str(path), "\n".join(map(without_secrets, path.read_text(errors="replace").splitlines()))


def without_secrets(line: str) -> str:
    """A line of an option file; of commands and of arguments for other programs, only the name of the option."""
    try:
        words = shlex.split(line, comments=True)
        if not words or words[0].startswith("@"):
            return "".join(words)
        if words[0] in ("up", "daemon") or words[0][0] in "BO":
            return f"{words[0] if words[0][0] not in 'BO' else words[0][0]} {HIDDEN}"
        if words[0] == "registry":
            return f"registry {parse_url(words[1])}"
        return shlex.join(words)
    except (ValueError, IndexError, RegistryError):
        return HIDDEN


def _netcheck(control: Path) -> Section:
    return "netcheck", "\n".join(text for finding in netcheck.look(control) for text in paint(lines_of(finding, None)))


def _unit() -> Iterator[Section]:
    unit = down.look()["unit"]
    if unit is not None:
        yield "unit", json.dumps(unit, indent=1)


def _logs(told: Mapping[str, Any]) -> Iterator[Section]:
    """The end of the journal and of the files, as far as we may read them."""
    journalctl = shutil.which("journalctl")
    if journalctl is not None:
        argv = [journalctl, "-u", "re6stnet", "-n", str(JOURNAL_LINES), "--no-pager", "-o", "short-iso", "--utc"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([*argv, "--no-hostname"], capture_output=True, timeout=PATIENCE, check=False)
            yield "journal", _end(done.stdout or done.stderr)
    directory = Path(told["options"]["options"]["log"]) if "options" in told else LOG_DIRECTORY
    for path in islice((path for pattern in LOGS for path in sorted(directory.glob(pattern))), LOGS_LIMIT):
        text = tail(path)
        if text is not None:
            yield str(path), text


def tail(path: Path) -> str | None:
    """The last lines of a file, of SECTION_LIMIT bytes at most; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - SECTION_LIMIT - 1))
            return _end(file.read(SECTION_LIMIT + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{error.strerror}"


def _end(data: bytes) -> str:
    """The last complete lines, at most SECTION_LIMIT bytes. Bytes that are not text are left out."""
    cut = data[-SECTION_LIMIT:]
    return (cut.split(b"\n", 1)[-1] if len(cut) < len(data) else cut).decode("utf-8", "ignore")


# --- pseudonyms ---


def _pseudonyms(told: Mapping[str, Any]) -> Pseudonyms:
    """For the names in the node's answers, its own first."""
    names = {os.uname().nodename: "this-host"}
    network = None
    certificate = told.get("certificate") or down.certificate()
    if not isinstance(certificate, str):
        network = IPv6Network(certificate["ca"]["network"])
        names[certificate["ca"]["subject"]] = "CA"
    urls = list(netcheck.configured_registries(down.DIRECTORY / netcheck.OPTION_FILE))
    if "status" in told:
        registry = told["status"]["registry"]
        urls = [each["url"] for each in registry.get("all", [registry])]
    hosts = [e["host"] for peer in told.get("peers", {"peers": []})["peers"] for e in peer["addresses"]]
    for number, url in enumerate(urls, 1):
        with suppress(RegistryError):
            names |= _name(parse_url(url).host, f"registry-host-{number}" if number > 1 else "registry-host")
    for number, host in enumerate(dict.fromkeys(hosts), 1):
        names |= _name(host, f"host-{number}")
    pseudonyms = Pseudonyms(network, names)
    if not isinstance(certificate, str):
        pseudonyms.learn(certificate["cn"])
    for name in ("peers", "routes"):
        for row in told[name][name] if name in told else ():
            if row["peer"]:
                pseudonyms.learn(row["peer"])
    return pseudonyms


def _name(host: str, other: str) -> dict[str, str]:
    """A host to be replaced; addresses are replaced anyway."""
    try:
        ip_address(host)
    except ValueError:
        return {host: other}
    return {}
