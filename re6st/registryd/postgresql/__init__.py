"""The registry's state in PostgreSQL (../repository.py), for registries of several processes."""
