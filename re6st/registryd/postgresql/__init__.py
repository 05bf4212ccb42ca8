"""The registry's state in PostgreSQL (../repository.py), for registries of several processes."""

import os

# psycopg 3.1 may wait with select(), which refuses descriptors from 1024 on.
os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_epoll")
