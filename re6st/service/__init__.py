"""Parts that both daemons have: tasks, logs, sockets, metrics, the run directory."""
