"""The pure core: no input, no output, no clock and no chance of its own.

Nothing here imports asyncio, socket, ssl, subprocess, sqlite3, time, random or os (tests/unit/test_house.py walks the
imports). A reading of the clock and a source of randomness are arguments.
"""
