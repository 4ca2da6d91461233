"""Control characters, bidi overrides and markup in what people type: refused, or shown escaped."""

from __future__ import annotations

from tests.cases.place import Place

NASTY = ("\x1b[2J", "\x07", "a\u202eb", "a\u2066b", "a\u200bb", "a\u2028b", "a\nb", "a\x9b31mb")


def case(place: Place) -> None:
    """Give them to descriptions and holders, and look at what is shown."""
    place.start_node()
    for text in NASTY:
        update = place.seatkeeper("pool", "update", "p", "--description", text)
        assert update.returncode == 2, (text, update)
        assert b"description" in update.stderr, (text, update)
        assert text.encode() not in update.stderr, (text, update)
        held = place.seatkeeper("run", "--pool", "p", "--holder", text, "--", "true")
        assert held.returncode == 2, (text, held)
        assert text.encode() not in held.stderr, (text, held)
    markup = "[red]x[/red][/nothing]"
    changed = place.seatkeeper("pool", "update", "p", "--description", markup)
    assert changed.returncode == 0, changed
    for command in (("status",), ("status", "p"), ("pool", "show", "p"), ("pool", "list")):
        shown = place.seatkeeper(*command)
        assert shown.returncode == 0, (command, shown)
        assert markup.encode() in shown.stdout, (command, shown)
