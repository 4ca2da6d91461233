"""What is done to a model before it is compiled, one step a module.

A step takes a model and returns another; it reads no file, and what it needs to know came with its
constructor. Steps run in the worker: what they do with a stranger's model costs that build alone.
"""

from __future__ import annotations

from typing import Protocol

from onnx import ModelProto


class BuildStep(Protocol):
    """One change of a model."""

    @property
    def name(self) -> str:
        """What it does, in a word or two, for progress and errors."""

    def apply(self, model: ModelProto) -> ModelProto:
        """Return the changed model; ``model`` itself is not to be used any more.

        Raises ``ConversionFailed`` where it cannot be changed so.
        """
