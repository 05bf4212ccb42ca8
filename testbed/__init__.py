"""The test bed: real re6st networks in Linux network namespaces, on one machine.

`Bed` makes hosts, switches and NAT routers and undoes them; `Network` puts a registry and nodes on them; `ping` sends
echo requests between any of them. The demo, the network tests and the benchmarks stand on it. Needs root.
"""

from testbed.bed import Bed, missing
from testbed.host import Host, Router
from testbed.namespace import BedError
from testbed.network import Network, Node
from testbed.pings import Pinger, ping, ping_pairs
from testbed.wait import wait_until

__all__ = [
    "Bed",
    "BedError",
    "Host",
    "Network",
    "Node",
    "Pinger",
    "Router",
    "missing",
    "ping",
    "ping_pairs",
    "wait_until",
]
