"""Many nodes in one process, on simulated time: the policy of the mesh as the daemon has it, over an ideal network.

What is real: `core/mesh` (which tunnels each node opens, drains and closes), its event log, and
`noded/mesh_driver.py`, by which the daemon carries out what the policy decides. The same seed gives the same run.

What is modelled, in three grains:

- `network.py`: every message, tunnel and decision has its moment. Opening a tunnel takes up to a second, or 15 s where
  nobody answers; an OpenVPN gives up a silent peer after a minute; one message in twenty between peers is lost; a
  server takes a limited number of clients; the registry may be silent; the network below may block any pair of nodes;
  machines die without a word and come back with their memory.
- `world.py`: the same for large networks of regions, with places in the world, machines behind NAT, and scenes
  (`python -m re6st.sim`). What nodes see is worked out for a whole region at once, and told at most every few seconds;
  a dead link is noticed after a time that was measured, not by babel's hellos. It needs numpy.
- `rounds.py`: in each round every node may replace one tunnel, and nothing takes time. It has places on three
  continents, round trips and babel's costs by them, so hundreds of nodes can be looked at.

What is not: babel's messages and timers. The router is ideal: routes are the shortest ways at once, within a second.
Packets, bandwidth, loss on links, ports, addresses that change, certificates, sessions and their cryptography,
the registry's parameters, older nodes, LANs, IPv4, and what any of it costs in processor time are not modelled either.
"""
