"""What the addresses and packet filters of this machine mean for a node."""
