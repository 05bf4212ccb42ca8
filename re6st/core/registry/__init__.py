"""The decisions of a registry: prefixes, sessions, limits, and which time it trusts."""
