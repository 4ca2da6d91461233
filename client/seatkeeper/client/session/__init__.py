"""One client's session: what is asked for under it, who keeps it, and what the service answers."""
