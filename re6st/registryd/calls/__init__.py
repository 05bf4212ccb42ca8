"""What the registry does for its callers, by subject: the methods of wire.md 3.4."""
