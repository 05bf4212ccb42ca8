"""The registry's own node: which one it is, why it cannot be revoked, and how another node takes its place.

It runs on the registry's machine. The registry tells changes to this node alone, and all nodes take a route to it as
proof that they are connected. Without it, nobody hears of a revocation or of a new key any more. So it cannot be
revoked: another node of this machine has to take its place first. In the same way, a registry that has lost its node
gets one again (docs/registry-admin.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.registryd.repository import Changes, Conflict, NotFound, Queries


@dataclass(frozen=True, slots=True)
class OwnNode:
    """The registry's own node. `certified`: it has a certificate, so it can be in the network."""

    prefix: Prefix
    certified: bool

    @property
    def problem(self) -> str:
        """What is wrong with it, as a text; empty: nothing."""
        if self.certified:
            return ""
        return (
            f"The registry's own node {self.prefix.cn} has no certificate (was it revoked?): the network gets no news"
            " any more, no revocation and no new key. Enrol the node of this machine again, then run"
            " re6st-registry own-node CN."
        )


def own_node(queries: Queries) -> OwnNode | None:
    """None before the first certificate. Raises ContentError."""
    prefix = queries.registry_prefix()
    return None if prefix is None else OwnNode(prefix, queries.pem(prefix) is not None)


def refuse_to_revoke(queries: Queries, prefix: Prefix) -> None:
    """Raises Conflict if this is the registry's own node."""
    if prefix == queries.registry_prefix():
        raise Conflict(
            f"{prefix.cn} is the registry's own node, and is not revoked: the network gets its news by it. If somebody"
            " else may have its key, run re6st-conf rekey on it. To put another node of this machine in its place, run"
            " re6st-registry own-node CN first."
        )


def take_place(changes: Changes, prefix: Prefix) -> bool:
    """Make this node the registry's own; returns whether it was another one. Raises Conflict, NotFound."""
    issued = changes.issued(prefix)
    if issued is None:
        raise NotFound(f"no certificate for {prefix.cn}")
    if changes.is_revoked(issued.serial):
        raise Conflict(f"the certificate of {prefix.cn} is revoked: run re6st-conf renew on it first")
    if prefix == changes.registry_prefix():
        return False
    changes.set_config("prefix", prefix.bits)
    return True
