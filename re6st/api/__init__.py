"""How the registry is asked: RPC over HTTP, the operator's socket, the metrics."""
