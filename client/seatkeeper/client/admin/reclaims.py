"""When a pool calls lent seats back, as text and as a message."""

from __future__ import annotations

from seatkeeper.client.admin.rule_values import is_whole, length_of, values_in
from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.reclaim import HOURLY_DEFAULT, MINIMUM_HOLD_DEFAULT
from seatkeeper.v1 import pool_service_pb2 as pb

EXAMPLE = "notice=60,minimum_hold=600,hourly=20"
_KEYS = ("notice", "minimum_hold", "hourly")


def parse_reclaim(text: str) -> pb.ReclaimRule:
    """Return what ``text`` says, such as ``notice=60,minimum_hold=600,hourly=20``.

    Times in seconds, or as ``10m``; all but ``notice`` may be left out. ``none``: an empty message.
    Raises `InvalidArgument` for what cannot be read; whether the values make sense is for a node to
    say.
    """
    if not (found := values_in("reclaim", text, _KEYS, EXAMPLE)):
        return pb.ReclaimRule()
    if "notice" not in found:
        raise InvalidArgument(f"reclaim: {text[:100]!r} gives no notice=LENGTH")
    rule = pb.ReclaimRule(hourly=HOURLY_DEFAULT)
    rule.minimum_hold.FromTimedelta(MINIMUM_HOLD_DEFAULT)
    rule.notice.FromTimedelta(length_of("reclaim", "notice", found["notice"]))
    if "minimum_hold" in found:
        rule.minimum_hold.FromTimedelta(
            length_of("reclaim", "minimum_hold", found["minimum_hold"])
        )
    if "hourly" in found:
        hourly = found["hourly"]
        if not is_whole(hourly):
            raise InvalidArgument(
                f"reclaim: hourly={hourly[:100]} is no whole number from 0 on"
            )
        rule.hourly = int(hourly)
    return rule


def reclaim_text(rule: pb.ReclaimRule) -> str:
    """Return the text that `parse_reclaim` reads it from."""
    notice = exact_seconds(rule.notice.ToTimedelta())
    hold = exact_seconds(rule.minimum_hold.ToTimedelta())
    return f"notice={notice},minimum_hold={hold},hourly={rule.hourly}"
