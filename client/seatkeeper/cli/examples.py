"""Examples in help texts. A test runs those that need no more than a node."""

from __future__ import annotations


def examples(*commands: str) -> str:
    """Return the end of a help text: commands that work as they stand."""
    heading = "Example:" if len(commands) == 1 else "Examples:"
    # The backspace makes typer leave the lines as they are.
    return "\n".join(["\b", heading, *(f"  {command}" for command in commands)])
