"""How a node calls its registry: the calls, and what they are needed for."""
