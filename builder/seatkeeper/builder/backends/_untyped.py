"""The vendors' libraries come without types; this names what we take from them on trust."""

from __future__ import annotations

from typing import Any

Untyped = Any
"""A module of a vendor's, or an object that it made."""
