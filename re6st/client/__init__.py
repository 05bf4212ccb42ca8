"""How a node uses its registry: the calls, and what it needs them for."""
