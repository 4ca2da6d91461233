"""What is made once for every seat that is taken: values that cost little to make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[T]) -> type[T]:
    """Make a dataclass of a value: with slots, equality and a hash, and never changed once it is made.

    The type checker sees to that, and not the interpreter, for which Python 3.11 takes six times as
    long to make a value of eight fields. Where few are made, have ``dataclass`` see to it.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
