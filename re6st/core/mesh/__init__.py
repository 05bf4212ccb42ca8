"""The policy of the mesh: which tunnels to open, keep, drain and close."""
