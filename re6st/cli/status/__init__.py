"""re6st-status: what a running node tells."""
