"""Signing tokens, and the keys that verify them."""
