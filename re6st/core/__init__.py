"""The pure core: no input, no output, no clock and no chance of its own.

Nothing here imports asyncio, socket, ssl, subprocess, sqlite3, time, random or os (import-linter sees to it:
pyproject.toml). A reading of the clock and a source of randomness are arguments.
"""
