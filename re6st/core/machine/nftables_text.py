"""Texts for nft(8) that are the same for each table of ours."""

from __future__ import annotations


def removal(table: str) -> str:
    """The commands that remove a table, if it exists."""
    return f"add table inet {table}\ndelete table inet {table}\n"
