"""What carries a tunnel (tunnel.py is its life)."""
