"""What became of the lines of files, for people."""

from __future__ import annotations

from collections.abc import Iterator

from seatkeeper.client.imports.parsed import Became
from seatkeeper.client.imports.translation import Translation
from seatkeeper.core.amounts import count


def report_lines(found: Translation) -> Iterator[str]:
    """Yield a line for each statement that is not in the file of pools as it was, and how many are.

    One that is translated has a line only where it was written in an unusual way. Nothing else is left
    out, so what has no line here is translated, blank, or a comment.
    """
    for outcome in found.outcomes:
        statement = outcome.statement
        reasons = [*outcome.reasons, *statement.remarks]
        if outcome.became is Became.TRANSLATED and not reasons:
            continue
        why = "; ".join(reasons)
        yield f"{statement.place}: {outcome.became.value}: {statement.shown}: {why}"
    for renamed in found.renamed:
        yield f"{renamed.place}: {renamed.what} {renamed.old} is named {renamed.new} here"
    counts = [f"{len(found.of(became))} {became.value}" for became in Became]
    yield f"{count(len(found.outcomes), 'statement')}: {', '.join(counts)}"
    if not found.refusals:
        yield (
            f"{count(found.pools, 'pool')}. Guaranteed seats are lent while they are idle; reserved "
            "ones were not"
        )
