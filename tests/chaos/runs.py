"""Runs that were never run, for those who draw and describe them."""

from __future__ import annotations

from seatkeeper.chaos.result import Chapter, Outcome, Sample, Struck

NOTHING = Outcome(target="nothing", judged_by="nobody", capacity=0)


def chapter(name: str, began: float, *struck: Struck, seconds: float = 10.0) -> Chapter:
    return Chapter(
        name=name,
        sentence=f"What {name} is about.",
        row="kill -9 owner",
        promises=("I1", "I8"),
        began=began,
        ended=began + seconds,
        struck=list(struck),
        requests=12_345,
        acknowledged=11_000,
        unanswered=45,
    )


def run(*chapters: Chapter) -> Outcome:
    end = int(max(each.ended for each in chapters))
    return Outcome(
        target="three nodes",
        judged_by="etcd's change stream",
        capacity=24,
        samples=[Sample(at / 4, at % 25, at % 7, at * 100) for at in range(end * 4)],
        chapters=list(chapters),
    )


def a_run() -> Outcome:
    """A run of two scenarios, in which three faults struck."""
    return run(
        chapter("owner-dies", 0.0, Struck("KillNode.owner", "node-1", 2.0, 3.5)),
        chapter(
            "network-breaks",
            10.0,
            Struck("Network.slow", "all nodes", 11.0, 19.0),
            Struck("Network.connections_break", "all nodes", 14.0, 14.0),
        ),
    )
