"""The move to this software and back: what the older software finds when it replaces ours, and what ours finds when it
returns.
"""
