"""Faults against a running service, and whether it kept its promises meanwhile."""
