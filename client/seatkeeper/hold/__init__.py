"""Runs a program under a seat: its signals, its guard, and how all of it is stopped.

Start with `program`. The guard is a small process that imports nothing but the standard library
and this package's `guard`, `stopping` and `linux`: keep imports out of this file.
"""
