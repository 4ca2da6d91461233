"""What happens on a node: usage events, the log of a node, and what its operator counts."""
