"""A whole network on one machine, by one command: `./run demo`."""
