"""Runs a program under a seat: its signals, its watchdog, and how all of it is stopped.

Start with `program`. The watchdog is a small process that imports nothing but the standard library
and this package's `watchdog`, `stopping` and `linux`: keep imports out of this file.
"""
