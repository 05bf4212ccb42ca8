"""re6st-status: asks a running node."""
