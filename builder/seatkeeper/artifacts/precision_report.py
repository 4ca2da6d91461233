"""What became of a model's precision: what it was converted to, how accurate that is, what is in what.

Pure. A worker finds it out, and it goes into the engine's manifest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seatkeeper.v1 import build_pb2

TEXT_CHARS_MAX = 1_000
OUTPUTS_MAX = 1_000
KEPT_MAX = 1_000
REFUSED_MAX = 16
SHARES_MAX = 16


@dataclass(frozen=True, kw_only=True)
class OutputAccuracy:
    """How one output of the converted model differs from that of the model as it was."""

    output: str
    relative_l2: float
    """L2 norm of the difference over that of the output as it was. NaN where the converted model makes
    NaN or infinity, and the model as it was does not."""
    max_abs: float
    """Largest difference of an element."""
    cosine_error: float
    """One less the cosine of the angle between them."""
    top1_agreement: float | None = None
    """Part of the rows whose largest element is at the same place; None: it has no rows of classes."""

    def is_within(self, tolerance: float) -> bool:
        """Return whether the output is accurate enough."""
        return self.relative_l2 <= tolerance  # not so of NaN


@dataclass(frozen=True, kw_only=True)
class PrecisionShare:
    """How much of a model is in one precision."""

    precision: str
    nodes: int
    """Nodes that compute in it."""
    weight_bytes: int
    """Bytes of the weights stored in it."""


@dataclass(frozen=True, kw_only=True)
class PrecisionReport:
    """What became of a model's precision."""

    precision: str
    """What it was converted to; of `auto`, the one that was taken."""
    shares: tuple[PrecisionShare, ...]
    outputs: tuple[OutputAccuracy, ...] = ()
    """Empty: nothing was converted, so there was nothing to compare."""
    samples: int = 0
    """How many samples accuracy was measured with."""
    is_proven: bool = False
    """Whether these were samples that somebody gave, not noise."""
    refused: tuple[str, ...] = ()
    """Of what was tried before, why it was not taken."""
    kept: tuple[str, ...] = ()
    """Nodes that stayed in a higher precision, but for those that have too few weights for 8 bits."""
    is_unchecked: bool = False
    """Whether the model was converted, and its accuracy was not measured."""


SPEED = "not measured"
"""Of every engine: no agent runs one, so none says that one precision is faster than another."""


def worst(outputs: Sequence[OutputAccuracy]) -> OutputAccuracy:
    """Return the output that differs most; NaN is more than any number."""
    return max(outputs, key=lambda each: (math.isnan(each.relative_l2), each.relative_l2))


def report_from_fields(fields: dict[str, Any]) -> PrecisionReport:
    """Return the report that ``dataclasses.asdict`` and JSON took apart, cut to what a manifest holds.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else.
    """
    return PrecisionReport(
        precision=_text(fields["precision"]),
        shares=tuple(
            PrecisionShare(
                precision=_text(share["precision"]),
                nodes=int(share["nodes"]),
                weight_bytes=int(share["weight_bytes"]),
            )
            for share in fields["shares"][:SHARES_MAX]
        ),
        outputs=tuple(_output(output) for output in fields["outputs"][:OUTPUTS_MAX]),
        samples=int(fields["samples"]),
        is_proven=bool(fields["is_proven"]),
        refused=tuple(map(_text, fields["refused"][:REFUSED_MAX])),
        kept=tuple(map(_text, fields["kept"][:KEPT_MAX])),
        is_unchecked=bool(fields["is_unchecked"]),
    )


def report_message(report: PrecisionReport) -> build_pb2.PrecisionReport:
    """Return the report as a manifest carries it."""
    message = build_pb2.PrecisionReport(
        precision=report.precision,
        speed=SPEED,
        shares=[
            build_pb2.PrecisionShare(
                precision=share.precision, nodes=share.nodes, weight_bytes=share.weight_bytes
            )
            for share in report.shares
        ],
        refused=report.refused,
        kept=report.kept,
        unchecked=report.is_unchecked,
    )
    if report.outputs:
        message.accuracy.samples = report.samples
        message.accuracy.proven = report.is_proven
        for output in report.outputs:
            message.accuracy.outputs.add(
                output=output.output,
                relative_l2=output.relative_l2,
                max_abs=output.max_abs,
                cosine_error=output.cosine_error,
                top1_agreement=output.top1_agreement,
            )
    return message


def _output(fields: dict[str, Any]) -> OutputAccuracy:
    agreement = fields["top1_agreement"]
    return OutputAccuracy(
        output=_text(fields["output"]),
        relative_l2=float(fields["relative_l2"]),
        max_abs=float(fields["max_abs"]),
        cosine_error=float(fields["cosine_error"]),
        top1_agreement=None if agreement is None else float(agreement),
    )


def _text(value: object) -> str:
    return str(value)[:TEXT_CHARS_MAX]
