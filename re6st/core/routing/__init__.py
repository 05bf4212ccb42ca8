"""What babeld is told and tells, and what follows from it."""
