"""re6st-conf: enrols a machine, and the words for one that has enrolled."""
