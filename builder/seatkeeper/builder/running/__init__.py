"""Runs engines on samples, and compares what they compute with what is expected of them."""
