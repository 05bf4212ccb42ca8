"""The rooms of the registry (registry.py is what each call does)."""
