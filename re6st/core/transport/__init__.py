"""The messages of OpenVPN, and the records of its processes."""
