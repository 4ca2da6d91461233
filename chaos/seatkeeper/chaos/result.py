"""What came of a run, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sample:
    """What users saw at a moment."""

    at: float
    """Seconds since the run began."""
    held: int
    """Seats that users counted on."""
    asking: int
    """Requests that waited for an answer: in the queue, or for a node."""
    acknowledged: int
    """Answers that users had been given since the run began."""


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was injected."""

    fault: str
    """Its name, such as ``KillNode.owner``."""
    place: str
    """What it affected."""
    since: float
    until: float
    """When it was recovered. Both in seconds since the run began."""


@dataclass(slots=True)
class ScenarioResult:
    """One scenario, as it was run."""

    name: str
    sentence: str
    """What it is about."""
    row: str
    """The row of the fault matrix that it belongs to; empty: none."""
    promises: tuple[str, ...]
    """The invariants that it is there to try: ``I1`` to ``I10``. All are checked in each."""
    began: float
    ended: float = 0.0
    injected: list[Injected] = field(default_factory=list)
    requests: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    """Attempts that got no certain answer: they may have happened, and were made again."""
    violations: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    """What of policies happened meanwhile, and how often; what did not is left out."""
    inconclusive: str = ""
    """Why it proves nothing, such as too little traffic before a fault; empty: it does."""


@dataclass(slots=True)
class Outcome:
    """A whole run."""

    target: str
    """What was run against, in words."""
    checked_by: str
    """What the checker had to go by, in words."""
    capacity: int
    """Seats there were, over all pools."""
    samples: list[Sample] = field(default_factory=list)
    scenario_results: list[ScenarioResult] = field(default_factory=list)
    prevented: dict[str, int] = field(default_factory=dict)
    """How often each attack was tried, and refused."""
    called_back: int = 0
    """Lent seats that were called back, where a pool does so."""
    taken_back: int = 0
    """Those of them that were taken at the end of their notice; the others were given back before."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return sum(
            scenario_result.ended - scenario_result.began
            for scenario_result in self.scenario_results
        )

    @property
    def faults(self) -> int:
        """How many faults were injected."""
        return sum(len(scenario_result.injected) for scenario_result in self.scenario_results)

    @property
    def acknowledged(self) -> int:
        """How many answers were held against what happened."""
        return sum(scenario_result.acknowledged for scenario_result in self.scenario_results)

    @property
    def violations(self) -> int:
        """How many times something was not as promised."""
        return sum(len(scenario_result.violations) for scenario_result in self.scenario_results)

    @property
    def inconclusive(self) -> int:
        """How many scenarios prove nothing."""
        return sum(
            bool(scenario_result.inconclusive) for scenario_result in self.scenario_results
        )
