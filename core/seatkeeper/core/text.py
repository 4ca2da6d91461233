"""Text from outside: what of it may be shown, how the rest is escaped, and whether it is text at all.

What a terminal, a log or a reader could take for something else is never written as it is: control
characters (an ESC begins an order to the terminal), what turns the direction of writing around, what
has no width, what ends a line, and halves of characters. The service refuses them in
every field (`seatkeeper.core.serving.texts`); whatever shows text escapes them all the same, since an
older service, another's, or a file may hold them.
"""

from __future__ import annotations

import os
import unicodedata

_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls; formats, among which are bidirectional controls and zero-width characters; surrogates; and
separators of lines and paragraphs."""
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that show nothing."""
_SELECTORS = range(0xE0100, 0xE01F0)
"""Variation selectors that nothing in use needs: whole messages have been hidden in them."""
_BYTE_OF_NAME = range(0xDC80, 0xDD00)
"""How Python keeps a byte of a file's name that is no character."""


def is_shown(character: str) -> bool:
    """Return whether a character can be written as it is."""
    return (
        unicodedata.category(character) not in _CATEGORIES
        and character not in _BLANKS
        and ord(character) not in _SELECTORS
    )


def hidden_in(text: str) -> str:
    """Return the first character of ``text`` that cannot be written as it is; empty: all can."""
    if text.isascii() and text.isprintable():
        return ""
    return next((character for character in text if not is_shown(character)), "")


def printable(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` as it may be shown anywhere: ``\x1b`` for what must not be.

    A byte of a file's name that is no character is shown as ``\xe9``. ``keep``: what is left as it is,
    such as the ends of lines.
    """
    if not hidden_in(text):
        return text
    return "".join(
        character if character in keep or is_shown(character) else escaped(character)
        for character in text
    )


def escaped(character: str) -> str:
    r"""Return a character as ``\x1b``, ``\u202e`` or ``\U000e0001``."""
    code = ord(character)
    if code in _BYTE_OF_NAME:
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def named(character: str) -> str:
    """Return how a character is called where it is refused: ``U+202E RIGHT-TO-LEFT OVERRIDE``."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()


def as_text(text: str) -> str:
    """Return ``text`` as characters, where it came from a command line or an environment.

    Under a locale such as ``C``, Python hands what is not ASCII over as single bytes; where they are
    UTF-8, this puts them together. Raises ``ValueError`` where they are not, or where half a
    character is among them: that has no place in a message.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise ValueError(f"'{printable(text)}' is not UTF-8") from None


def name_of_file(path: str | bytes | os.PathLike[str]) -> str:
    r"""Return a file's base name for messages: ``\xe9`` is for what is not UTF-8, or hidden."""
    name = os.path.basename(os.fsencode(path))
    return printable(name.decode("utf-8", "surrogateescape"))


def path_in_json(path: str | bytes | os.PathLike[str]) -> str:
    r"""Return a path for JSON, the same under every locale.

    A byte that is not UTF-8 is one escape, ``\udce9`` for E9, as Python's ``os.fsdecode`` has it;
    ``os.fsencode`` of what a Python program reads is the file's name again.
    """
    return os.fsencode(path).decode("utf-8", "surrogateescape")
