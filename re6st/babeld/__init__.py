"""The sockets of babeld (babel.py is its life)."""
