"""re6stnet: the daemon's options, and --check."""
