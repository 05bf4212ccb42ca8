"""The programs: re6stnet, re6st-registry, re6st-conf."""
