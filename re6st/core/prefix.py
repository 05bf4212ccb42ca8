"""A small type for subnets: CN <-> bits <-> IPv6 network (wire.md section 1, vectors/addressing.json).

The prefix of the network is written in the serial number of the CA's certificate. A node owns a `Prefix` inside the
network. Its text in the certificate is the CN, `INT/LEN`; in protocols and databases it is a string of '0' and '1'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

MAX_LENGTH = 128

_CN = re.compile(r"(0|[1-9][0-9]{0,39})/(0|[1-9][0-9]{0,2})", re.ASCII)


class PrefixError(ValueError):
    """A text is not a prefix or a CN, or a prefix does not fit into the network."""


@total_ordering
@dataclass(frozen=True, slots=True)
class Prefix:
    """A string of `length` bits whose value is `value`.

    The length matters: Prefix(1, 1) is '1', Prefix(1, 2) is '01'. Prefixes compare as their bit strings do, which is
    the order that decides who keeps a doubled tunnel (wire.md 8.4).
    """

    value: int
    length: int

    def __post_init__(self) -> None:
        if not 0 <= self.length <= MAX_LENGTH or not 0 <= self.value < 1 << self.length:
            raise PrefixError(f"{self.value}/{self.length} is not a prefix: the number needs more bits")

    @classmethod
    def from_bits(cls, bits: str) -> Prefix:
        """Read a prefix that is written as '0' and '1'. Raises PrefixError."""
        if len(bits) > MAX_LENGTH or bits.strip("01"):
            raise PrefixError(f"{bits[:140]!r} is not a string of at most {MAX_LENGTH} characters 0 and 1")
        return cls(int(bits or "0", 2), len(bits))

    @classmethod
    def from_cn(cls, cn: str) -> Prefix:
        """Read a CN, `INT/LEN`. Raises PrefixError, also if INT needs more than LEN bits."""
        match = _CN.fullmatch(cn)
        if match is None:
            raise PrefixError(f"{cn[:140]!r} is not of the form INT/LEN")
        return cls(int(match[1]), int(match[2]))

    @property
    def bits(self) -> str:
        return format(self.value, f"0{self.length}b") if self.length else ""

    @property
    def cn(self) -> str:
        return f"{self.value}/{self.length}"

    def __str__(self) -> str:
        return self.cn

    def __lt__(self, other: Prefix) -> bool:
        return self.bits < other.bits

    def contains(self, other: Prefix) -> bool:
        """Whether `other` is this prefix or starts with it."""
        shift = other.length - self.length
        return shift >= 0 and other.value >> shift == self.value

    def child(self, bit: int) -> Prefix:
        """This prefix with one more bit."""
        return Prefix(self.value << 1 | bit, self.length + 1)

    @property
    def parent(self) -> Prefix:
        return Prefix(self.value >> 1, self.length - 1)

    @property
    def sibling(self) -> Prefix:
        """The other half of the parent prefix."""
        return Prefix(self.value ^ 1, self.length)


def network_of_serial(serial: int) -> IPv6Network:
    """The IPv6 network written in the serial number of the CA certificate (wire.md 1.1). Raises PrefixError."""
    length = serial.bit_length() - 1
    if serial < 0 or not 0 < length <= MAX_LENGTH:
        raise PrefixError(f"CA serial number {serial:#x} contains no IPv6 prefix")
    return IPv6Network(((serial ^ 1 << length) << MAX_LENGTH - length, length))


def serial_of_network(network: IPv6Network) -> int:
    """The inverse of `network_of_serial`."""
    return 1 << network.prefixlen | int(network.network_address) >> MAX_LENGTH - network.prefixlen


def subnet(network: IPv6Network, prefix: Prefix) -> IPv6Network:
    """The subnet of a node. Raises PrefixError if the prefix is too long for the network."""
    length = network.prefixlen + prefix.length
    if length > MAX_LENGTH:
        raise PrefixError(f"prefix {prefix} is too long for {network}")
    return IPv6Network((int(network.network_address) | prefix.value << MAX_LENGTH - length, length))


def address(network: IPv6Network, prefix: Prefix) -> IPv6Address:
    """The address of a node: its subnet with the last bit set, or the subnet itself if that is a /128."""
    net = subnet(network, prefix)
    return net.network_address if net.prefixlen == MAX_LENGTH else net.network_address + 1


def control_address(network: IPv6Network, prefix: Prefix) -> IPv6Address:
    """Where the messages of wire.md section 6 for this node are sent: the first address of its subnet (1.2)."""
    return subnet(network, prefix).network_address


def prefix_of(network: IPv6Network, net: IPv6Network) -> Prefix | None:
    """The prefix of a subnet inside the network; None for any other subnet and for the network itself."""
    length = net.prefixlen - network.prefixlen
    if length <= 0:
        return None
    # In integers: this is done for every route of a table, and `subnet_of` is slow.
    value = int(net.network_address) >> MAX_LENGTH - net.prefixlen
    if value >> length != int(network.network_address) >> MAX_LENGTH - network.prefixlen:
        return None
    return Prefix(value & (1 << length) - 1, length)


def address_bits(network: IPv6Network, ip: IPv6Address) -> Prefix | None:
    """All bits of an address that follow the network's; None for an address outside the network."""
    return prefix_of(network, IPv6Network(ip)) if ip in network else None


def ipv4_subnet(network: IPv4Network, extra_bits: int, number: int) -> IPv4Network | None:
    """The IPv4 subnet of node number `number` (wire.md 1.4), or None if the network has none for it."""
    length = network.prefixlen + extra_bits
    if not 0 <= extra_bits <= 16 or length > 32 or not 0 <= number < 1 << extra_bits:
        return None
    return IPv4Network((int(network.network_address) | number << 32 - length, length))


def ipv4_address(net: IPv4Network) -> IPv4Address:
    """The node's own address in its IPv4 subnet (wire.md 1.4)."""
    return net.network_address + 1 if net.prefixlen < 31 else net.network_address
