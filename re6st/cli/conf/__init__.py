"""re6st-conf: enrols a machine, and has commands for a machine that has enrolled."""
