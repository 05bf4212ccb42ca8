"""The registry's state in one SQLite file: tables, queries, changes, and what is done to the file itself."""
