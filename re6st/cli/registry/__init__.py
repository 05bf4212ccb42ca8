"""re6st-registry: the daemon's options, and the operator's commands."""
