"""How large a gang may be: seats of several pools of which all are granted, or one."""

GANG_MIN, GANG_MAX = 2, 8
"""Pools of a gang."""
ALTERNATIVES_MIN, ALTERNATIVES_MAX = 2, 4
"""Pools of which one is wanted."""
AFTER_MAX_SECONDS = 86_400
"""After how long the last of them may be granted, at most."""
