"""What happens on a node, for logs and metrics."""
