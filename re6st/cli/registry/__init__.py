"""re6st-registry: the daemon's options, and the words of its operator."""
