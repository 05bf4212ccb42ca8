"""The settings and messages of babeld, and what follows from its routes."""
