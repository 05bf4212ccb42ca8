"""The rooms of a node (node.py starts and ends them)."""
