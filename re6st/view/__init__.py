"""Texts for people. Nothing is decided here, and nothing is read or sent."""
