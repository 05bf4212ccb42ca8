"""What the registry decides: prefixes, sessions, limits, whose time it believes."""
