"""The sockets of babeld, which babel.py runs."""
