"""The registry's state in one SQLite file: tables, queries, changes, and operations on the file itself."""
