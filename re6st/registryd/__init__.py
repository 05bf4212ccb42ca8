"""The parts of the registry, which registry.py puts together."""
