"""Reports of a running service: each node's own, and one node's of all."""
