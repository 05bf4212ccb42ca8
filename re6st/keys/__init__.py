"""Keys and certificates beside cert.py: reading them with each version of the library, sealing, files."""
