"""From which requests of a licence share its seats (``DUP_GROUP``, ``share=``) to what counts once."""

from __future__ import annotations

from collections.abc import Mapping

from seatkeeper.client.imports.parsed import Outcome
from seatkeeper.client.imports.seats import Pool
from seatkeeper.core.count_once import HOLDER, HOST, LABEL
from seatkeeper.v1 import pool_service_pb2 as pb

DISPLAY = f"{LABEL}display"
ALONE = "so each process takes a seat of its own"
USER_ALONE = (
    "a holder is user@host unless a request says otherwise: a user has a seat on each host"
)
NEEDS_DISPLAY = (
    "a request says its display as the label `display`: those that say none count by themselves"
)
DIFFER = f"licences of it that share a pool say different things of what counts once, {ALONE}"
LIMITED = (
    f"each holder may hold so many seats, and what counts once is not of one holder, {ALONE}"
)


def named_by(
    letters: str, known: Mapping[str, str], said: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what letters name that must be the same, and what is lost of what they say.

    ``known``: by letter the attribute of a pool; what has no counterpart is not among them. Then
    nothing counts once: what has less in common would share seats.
    """
    if any(letter not in known for letter in letters):
        others = "".join(letter for letter in letters if letter not in known)
        return (), (f"{said}: a pool does not know what {others} names, {ALONE}",)
    found = tuple(dict.fromkeys(known[letter] for letter in letters))
    lost = [USER_ALONE] if found == (HOLDER,) else []
    lost += [NEEDS_DISPLAY] if DISPLAY in found else []
    return found, tuple(f"{said}: {each}" for each in lost)


def put_count_once(spec: pb.PoolSpec, pool: Pool) -> tuple[Outcome, ...]:
    """Write which grants of a pool count once into it; return the lines that this comes from."""
    said = {source.count_once for source in pool.sources}
    outcomes = [source.outcome for source in pool.sources if source.count_once]
    if not outcomes:
        return ()
    if len(said) > 1:
        for outcome in outcomes:
            outcome.partly(DIFFER)
        return ()
    (named,) = said
    if spec.policy.rules.per_holder.HasField("seats") and HOLDER not in named:
        for outcome in outcomes:
            outcome.partly(LIMITED)
        return ()
    spec.policy.count_once.extend(named)
    for outcome in outcomes:
        outcome.targets.append(f"pools.{spec.name}.count_once")
    return tuple({id(each): each for each in outcomes}.values())


OF_FLEXNET = {"U": HOLDER, "H": HOST, "D": DISPLAY}
OF_RLM = {"u": HOLDER, "h": HOST}
