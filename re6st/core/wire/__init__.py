"""What is sent: datagrams of port 326, sessions, the registry's calls, the parameters (wire.md)."""
