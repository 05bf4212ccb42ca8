"""What a node has on this machine beside its processes, and how that goes when no daemon is there to remove it.

A daemon that is replaced leaves its tunnels, our address and routes to the next one. If that cannot even start, as with
a broken certificate, it does not know what our address was. So it is noted in the run directory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from re6st import babel
from re6st.core.machine import handing_rules, incoming_rules, share_rules
from re6st.core.machine.nftables_text import removal
from re6st.core.machine.wanted_state import RTPROT_STATIC, AddressPlan
from re6st.core.routing.regions import ROUTE_PROTOCOL
from re6st.linux import process
from re6st.linux.kernel import Kernel
from re6st.linux.nftables import Nft, NftError, Ruleset
from re6st.linux.process import MissingProgram
from re6st.noded import multicast
from re6st.noded.babeld_sysctls import BabeldSysctls
from re6st.noded.hooks import Hooks
from re6st.noded.mptcp_settings import MptcpSettings
from re6st.noded.packet_filter import PacketFilter
from re6st.noded.router_advertisements import Advertisements
from re6st.service import run_names, rundir
from re6st.service.rundir import RunDirectory
from re6st.transport import catalogue

LEFT = catalogue.PROGRAMS | {babel.PROGRAM, multicast.PROGRAM}
"""Programs that a daemon may leave running."""
TABLES = (share_rules.TABLE, handing_rules.TABLE, incoming_rules.TABLE)
"""Tables of nftables beside that of the packet filter."""
NOTE_LIMIT = 1 << 16
"""Bytes."""

log = logging.getLogger(__name__)


def note(run: Path, plans: Collection[AddressPlan]) -> None:
    """Note what the kernel is told of our networks. What cannot be noted costs the removal without a daemon only."""
    told = [
        {
            "network": str(each.network),
            "address": str(each.address),
            "length": each.length,
            "unreachable": [str(network) for network in each.unreachable],
            "protocol": each.protocol,
        }
        for each in plans
    ]
    try:
        rundir.write(run / run_names.PLACED, json.dumps(told).encode())
    except OSError as error:
        log.warning(
            "cannot write %s: %s. No later daemon will know to remove this node's address",
            error.filename or run,
            error.strerror,
        )


def noted(run: Path) -> tuple[AddressPlan, ...]:
    """What was noted last; nothing where that cannot be read."""
    try:
        with (run / run_names.PLACED).open("rb") as file:
            return tuple(map(_address_plan, json.loads(file.read(NOTE_LIMIT))))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("%s: %s", run / run_names.PLACED, error)
    return ()


def former_regions(run: Path, wanted: Collection[AddressPlan]) -> list[AddressPlan]:
    """Those that an earlier daemon had, and told others of, and that are not wanted now."""
    return [plan for plan in noted(run) if plan.protocol == ROUTE_PROTOCOL and plan not in wanted]


async def remove(run: Path, plans: Sequence[AddressPlan] = ()) -> list[str]:
    """End what runs without a daemon, and take what was noted, and `plans`, off this machine. Says what it was.

    The run directory is ours alone meanwhile (see `remove_alone`). Raises NetlinkError.
    """
    ended = await process.end_leftovers(LEFT, run)
    removed = [f"process {pid}" for pid in ended]
    await Hooks((), (), {}, run).clear()
    await PacketFilter().close()
    removed += await remove_tables()
    mptcp = MptcpSettings(run / run_names.MPTCP)
    mptcp.recall()
    mptcp.undo()
    with closing(Kernel()) as kernel:
        removed += await kernel.clear({*noted(run), *plans})
    sysctls = BabeldSysctls(run / run_names.BABELD_SYSCTLS)
    sysctls.recall()
    sysctls.undo()
    advertisements = Advertisements(run / run_names.ROUTER_ADVERTISEMENTS)
    advertisements.recall()
    advertisements.undo()
    return removed


async def remove_alone(run: Path) -> list[str]:
    """The same, and the files of the run directory, unless a node lives there.

    Raises RunDirectoryBusy where one does, RunDirectoryError, NetlinkError.
    """
    with suppress(FileNotFoundError):
        if any(run_names.is_ours(each.name) and each.name != run_names.LOCK for each in run.iterdir()):
            with RunDirectory(run):
                return await remove(run)
    return []


async def remove_tables(make: Callable[[], Ruleset] = Nft) -> list[str]:
    """Those by which connections go over one line or the other: they are made only while a line is full. Says which."""
    try:
        nft = make()
    except MissingProgram:
        return []
    removed = []
    with closing(nft):
        for table in TABLES:
            try:
                if nft.counters(table):
                    await nft.load(removal(table))
                    removed.append(f"nftables table {table}")
            except NftError as error:
                log.warning(
                    "the nftables table %s stays: %s. `nft delete table inet %s` removes it", table, error, table
                )
    return removed


def _address_plan(told: Any) -> AddressPlan:
    network, unreachable = ip_network(told["network"]), tuple(map(ip_network, told["unreachable"]))
    protocol = int(told.get("protocol", RTPROT_STATIC))
    return AddressPlan(network, ip_address(told["address"]), int(told["length"]), unreachable, protocol)
