"""How the registry is called: RPC over HTTP, the operator's socket, the metrics."""
