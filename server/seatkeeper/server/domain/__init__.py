"""The values that decisions are made on: pools, grants, tickets, commands and their outcomes. Pure."""

from seatkeeper.core.hold import HoldRule
from seatkeeper.core.lot_use import LotMarks, MarkedSeats, joined, marks_of, room_in, within
from seatkeeper.core.pool_rules import NO_RULES, PoolRules
from seatkeeper.core.projects import (
    NO_POLICY,
    Overtaking,
    PoolPolicy,
    ProjectShare,
    policy_fault,
)
from seatkeeper.core.reclaim import ReclaimRule
from seatkeeper.core.reservations import Window
from seatkeeper.core.stay import StayRule
from seatkeeper.server.domain.attribution import Attribution
from seatkeeper.server.domain.basis import Basis, EstimatedWait
from seatkeeper.server.domain.borrow import Borrow
from seatkeeper.server.domain.commands import (
    Acquire,
    Administrative,
    BorrowCommand,
    BorrowGrant,
    Command,
    Denied,
    ExtendGrant,
    Forced,
    ForcedEnd,
    Granted,
    Moved,
    MoveTicket,
    Noted,
    Outcome,
    Queued,
    Refusal,
    Release,
    Released,
    ReportIdle,
    ReturnGrant,
    RevokeGrant,
    TakeOver,
    To,
    WithdrawRevoke,
    WorkEnd,
)
from seatkeeper.server.domain.drain import Drain
from seatkeeper.server.domain.holds import NO_HOLDS, Holds, Revoke
from seatkeeper.server.domain.limits import Limits
from seatkeeper.server.domain.move import Move
from seatkeeper.server.domain.reclaims import NO_RECLAIMS, Cause, Reclaim, Reclaims
from seatkeeper.server.domain.state import (
    Grant,
    Guard,
    Instant,
    PoolSpec,
    PoolState,
    Stay,
    Ticket,
    Usage,
)
from seatkeeper.server.domain.watermark import Watermark

__all__ = [
    "NO_HOLDS",
    "NO_POLICY",
    "NO_RECLAIMS",
    "NO_RULES",
    "Acquire",
    "Administrative",
    "Attribution",
    "Basis",
    "Borrow",
    "BorrowCommand",
    "BorrowGrant",
    "Cause",
    "Command",
    "Denied",
    "Drain",
    "EstimatedWait",
    "ExtendGrant",
    "Forced",
    "ForcedEnd",
    "Grant",
    "Granted",
    "Guard",
    "HoldRule",
    "Holds",
    "Instant",
    "Limits",
    "LotMarks",
    "MarkedSeats",
    "Move",
    "MoveTicket",
    "Moved",
    "Noted",
    "Outcome",
    "Overtaking",
    "PoolPolicy",
    "PoolRules",
    "PoolSpec",
    "PoolState",
    "ProjectShare",
    "Queued",
    "Reclaim",
    "ReclaimRule",
    "Reclaims",
    "Refusal",
    "Release",
    "Released",
    "ReportIdle",
    "ReturnGrant",
    "Revoke",
    "RevokeGrant",
    "Stay",
    "StayRule",
    "TakeOver",
    "Ticket",
    "To",
    "Usage",
    "Watermark",
    "Window",
    "WithdrawRevoke",
    "WorkEnd",
    "joined",
    "marks_of",
    "policy_fault",
    "room_in",
    "within",
]
