"""Who decides for which pool: the nodes that are alive, and forwarding requests to the owner."""
