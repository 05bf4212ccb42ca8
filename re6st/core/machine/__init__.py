"""What this machine's addresses and packet filters mean for a node."""
