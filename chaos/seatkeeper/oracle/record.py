"""What the users of a service did and received, for the checker."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Acquired:
    """Seats that were given to a user, and the user knows it."""

    user: str
    pool: str
    grant_id: str
    fence: int
    seats: int
    at: float
    """Seconds since the record began, when the user received it."""


@dataclass(frozen=True, slots=True)
class Returned:
    """Seats that a user gave back, and that the service has confirmed."""

    user: str
    pool: str
    grant_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was refused for certain: it must never be granted from then on."""

    user: str
    pool: str
    grant_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Denied:
    """A request that was denied because no seat became free in time."""

    user: str
    pool: str
    asked_at: float
    at: float
    wait: float
    """How long it was willing to wait, in seconds."""


@dataclass(frozen=True, slots=True)
class Published:
    """An engine that an agent published, and that the service has confirmed."""

    agent: str
    pool: str
    grant_id: str
    fence: int
    at: float


class Attack(Enum):
    """What somebody tries who must not."""

    THEFT = "somebody else's seat given back"
    LATE_PUBLICATION = "an engine published too late"


@dataclass(frozen=True, slots=True)
class Prevented:
    """An attack that was tried, and refused."""

    user: str
    attack: str
    """The value of a ``Attack``."""
    pool: str
    grant_id: str
    fence: int
    at: float


@dataclass(frozen=True, slots=True)
class Believed:
    """A time in which a user counted on seats, by its own clock and as seen from outside."""

    user: str
    pool: str
    seats: int
    since: float
    until: float
    """The user stopped before this moment."""
    grant_id: str = ""
    """Under which id; empty: it is not known."""

    def __str__(self) -> str:
        """Return it in a few words."""
        return f"{self.user} in {self.seats} from {self.since:.3f} to {self.until:.3f} s"


@dataclass(frozen=True, slots=True)
class Failed:
    """A call that failed for its caller for good, after all tries that the client makes."""

    user: str
    call: str
    reason: str
    at: float

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.user}, {self.call}, at {self.at:.2f} s: {self.reason}"


Observed = Acquired | Returned | Refused | Denied | Published | Prevented | Failed


@dataclass
class Record:
    """Everything that is certain. What was never answered is not in it: it may have happened."""

    acquired: list[Acquired] = field(default_factory=list)
    returned: list[Returned] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    denied: list[Denied] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    prevented: list[Prevented] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    """No promise forbids them under faults; the caller that counts them says which are allowed."""
    killed: dict[str, float] = field(default_factory=dict)
    """When users were killed, and did not come back."""
    ttls: dict[str, float] = field(default_factory=dict)
    """How long users' leases are, in seconds."""
    unserved: list[tuple[str, float]] = field(default_factory=list)
    """Requests without a certain answer: whose, and until when."""
    operations: int = 0
    """Requests made, answered or not."""
    unknown: int = 0
    """Attempts that got no certain answer: they may have happened, and were made again."""

    @property
    def acknowledged(self) -> int:
        """How many answers there are to hold the service to."""
        given = len(self.acquired) + len(self.returned)
        return given + len(self.refused) + len(self.denied) + len(self.published)

    def copy(self) -> Record:
        """Return it as it is now."""
        return Record(
            acquired=list(self.acquired),
            returned=list(self.returned),
            refused=list(self.refused),
            denied=list(self.denied),
            published=list(self.published),
            prevented=list(self.prevented),
            failed=list(self.failed),
            killed=dict(self.killed),
            ttls=dict(self.ttls),
            unserved=list(self.unserved),
            operations=self.operations,
            unknown=self.unknown,
        )

    def note(self, reported: Observed) -> None:
        """Record what a user received."""
        match reported:
            case Acquired():
                self.acquired.append(reported)
            case Returned():
                self.returned.append(reported)
            case Refused():
                self.refused.append(reported)
            case Denied():
                self.denied.append(reported)
            case Published():
                self.published.append(reported)
            case Prevented():
                self.prevented.append(reported)
            case Failed():
                self.failed.append(reported)
