"""How large a gang may be: seats of several pools that are granted together, or not at all."""

GANG_MIN, GANG_MAX = 2, 8
"""Pools of a gang."""
