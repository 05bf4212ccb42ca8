"""The rooms of the registry (registry.py puts them together)."""
