"""The doors of a node: thin adapters from gRPC to the core."""
