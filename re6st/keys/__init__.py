"""Keys and certificates, as far as cert.py does not have them: reading with each version of the library, sealing,
files.
"""
