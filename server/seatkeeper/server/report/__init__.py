"""What operators are told of a running service: each node of itself, and one of them of all."""
