"""The pure core: it does no input and no output, and reads no clock and no random numbers.

Nothing here imports asyncio, socket, ssl, subprocess, sqlite3, time, random or os; import-linter checks this
(pyproject.toml). Times and a source of random numbers are arguments.
"""
