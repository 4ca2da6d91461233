"""Calls to nodes: channels, retries, breakers, errors of the wire."""
