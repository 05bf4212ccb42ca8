"""Whatever a node writes into its run directory, the next one accepts, whichever version either is."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core import interfaces
from re6st.core.prefix import Prefix
from re6st.core.routing.planes import MAIN
from re6st.core.transport.records import ClientRecord, Record, ServerRecord
from re6st.core.tunnel_protocols import SERVED, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded.takeover import Records
from re6st.service import run_names, rundir
from re6st.service.rundir import RunDirectory
from re6st.transport import openvpn

CONSTANTS = [
    value
    for name, value in vars(run_names).items()
    if isinstance(value, str) and name.isupper() and not name.startswith("_")
]

clients = st.one_of(st.just(interfaces.SOLE), st.integers(1, 5000).map(interfaces.client))
servers = st.sampled_from(SERVED).map(interfaces.server)
numbers = st.integers(1, 64)


def settings(run: Path) -> openvpn.OpenVpnSettings:
    ca, cert, key = Path("ca"), Path("cert"), Path("key")
    return openvpn.OpenVpnSettings("openvpn", run, None, ca, cert, key, True, 16)


@st.composite
def written(draw: st.DrawFn) -> str:
    """The name of any file that any part of a node makes."""
    interface = draw(clients | servers)
    process = run_names.attempt(interface, draw(numbers)) if interface.find("-") < 0 else interface
    run = Path("/run/re6stnet")
    name = draw(
        st.sampled_from(
            (
                *CONSTANTS,
                settings(run).management(process).name,
                settings(run).output(process).name,
                run_names.record(interface),
            )
        )
    )
    return (
        draw(st.sampled_from((name, run_names.unfinished(name)))) if "." in name and not name.endswith("sock") else name
    )


@given(written())
def test_every_name_is_known_to_this_version_and_to_all_before(name: str) -> None:
    assert run_names.is_ours(name)
    assert run_names.OLDEST.fullmatch(name)


@given(clients, numbers, st.integers(1, 1 << 22))
def test_what_versions_before_left_is_known(interface: str, number: int, pid: int) -> None:
    """They named an attempt after a dot, and a configuration that is being written after the process."""
    for name in (f"{interface}.{number}.sock", f"{interface}.{number}.out", f"{interface}.new", f"{interface}.json"):
        assert run_names.is_ours(name)
    assert run_names.process_of(f"{interface}.{number}.out") == f"{interface}.{number}"
    assert run_names.is_ours(f"babeld.conf.{pid}.tmp")
    assert run_names.is_unfinished(f"babeld.conf.{pid}.tmp")


@given(clients | servers, numbers)
def test_a_process_tells_its_interface_and_a_file_its_process(interface: str, number: int) -> None:
    process = run_names.attempt(interface, number)
    assert run_names.interface_of(process) == interface
    assert run_names.interface_of(f"{interface}.{number}") == interface
    for name in (run_names.management(process), run_names.output(process), run_names.record(process)):
        assert run_names.process_of(name) == process


@given(st.lists(st.tuples(clients, numbers), max_size=5), st.integers(0, 20))
def test_a_node_killed_at_any_moment_is_followed_by_another(
    tmp_path_factory: pytest.TempPathFactory, tunnels: list[tuple[str, int]], killed: int
) -> None:
    """Each step of its life leaves one more file; the last may be without its content or its name."""
    run = tmp_path_factory.mktemp("node") / "run"
    run.mkdir(mode=0o700)
    records = Records(run)

    def write(name: str) -> None:
        rundir.write(run / name, b"x")

    def tunnel(interface: str, number: int) -> None:
        process = run_names.attempt(interface, number)
        for path in (settings(run).management(process), settings(run).output(process)):
            path.touch()
        peer = Prefix(1, 16)
        record: Record = ClientRecord(
            1, "made", process, peer, Endpoint("192.0.2.1", 1194, TunnelProtocol.UDP), 5, None, 1400, 1000.0
        )
        records.write(interface, record)
        records.write(interfaces.server(TunnelProtocol.UDP), ServerRecord(1, "made", {}))

    steps: list[Callable[[], object]] = [
        (run / run_names.LOCK).touch,
        partial(rundir.write_revoked, run, frozenset((5, 7))),
        *(partial(write, name) for name in CONSTANTS if "." in name and not name.endswith("sock")),
        *(partial(tunnel, *pair) for pair in tunnels),
    ]
    for step in steps[:killed]:
        step()
    with mock.patch.object(Path, "replace", side_effect=SystemExit):  # killed with the file not in its place yet
        for step in steps[killed : killed + 1]:
            with contextlib.suppress(SystemExit):
                step()
    names = os.listdir(run)
    assert [name for name in names if not run_names.OLDEST.fullmatch(name)] == []
    with RunDirectory(run):
        rundir.remove_old(run, ())
        assert [name for name in os.listdir(run) if run_names.is_unfinished(name)] == []
        assert Records(run).read() == {}
    assert not run.exists()


def test_no_part_of_a_node_makes_up_a_name() -> None:
    own = re.compile(r"""\brun / f?["']|_run / f?["']""")
    package = Path(run_names.__file__).parent
    assert [path.name for path in package.rglob("*.py") if own.search(path.read_text())] == []


@pytest.mark.parametrize("kind", ["conf", "ctl", "out"])
@pytest.mark.parametrize("plane", [MAIN.name, "re6stnet-plane-spare"])
def test_the_files_of_every_routing_plane_are_those_of_a_node(plane: str, kind: str) -> None:
    name = run_names.babeld(plane, kind)
    assert run_names.is_ours(name)
    assert run_names.OLDEST.fullmatch(name)
    assert run_names.process_of(name) is None, "it belongs to no tunnel"
