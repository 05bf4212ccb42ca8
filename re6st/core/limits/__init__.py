"""Limits on what others can make us do, store and log: for each sender, and in all."""
