"""How a pool's seats are shared, as text and as messages: projects, and who may overtake."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

from seatkeeper.client.admin.rule_values import is_whole, length_of
from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

_FIELDS = ("guaranteed", "limit", "weight", "parent")
NO_OVERTAKING = "none"


def parse_project(text: str) -> pb.ProjectShare:
    """Return what ``text`` says of a project, such as ``vision:guaranteed=4,limit=8,weight=2``.

    Its fields are those of ``ProjectShare``; what is left out has its default. Raises `InvalidArgument`
    for what cannot be read; whether the values make sense is for a node to say.
    """
    name, _, rest = text.partition(":")
    share = pb.ProjectShare(project=name.strip())
    if not share.project:
        raise InvalidArgument(
            f"{text[:100]!r} names no project; write NAME:guaranteed=4,weight=2"
        )
    seen: set[str] = set()
    for part in filter(None, (each.strip() for each in rest.split(","))):
        field, equals, value = (each.strip() for each in part.partition("="))
        if not equals or field not in _FIELDS:
            raise InvalidArgument(
                f"project {share.project}: {part[:100]!r} is none of "
                f"{', '.join(f'{each}=' for each in _FIELDS)}"
            )
        if field in seen:
            raise InvalidArgument(f"project {share.project}: {field} is given twice")
        seen.add(field)
        _set(share, field, value)
    return share


def project_text(share: pb.ProjectShare) -> str:
    """Return the text that `parse_project` reads a share from."""
    said = [f"guaranteed={share.guaranteed}"] if share.guaranteed else []
    said += [f"limit={share.limit}"] if share.HasField("limit") else []
    said += [f"weight={share.weight or 1}"]
    said += [f"parent={share.parent}"] if share.parent else []
    return f"{share.project}:{','.join(said)}"


def parse_overtaking(text: str) -> pb.Overtaking:
    """Return what ``text`` says, such as ``seats=4,within=10m``; ``none``: an empty message.

    A number without a unit is seconds. ``hold_back=300`` beside these: how long at most seats are kept
    free for a gang.

    Raises `InvalidArgument` for what cannot be read; whether the values make sense is for a node to
    say.
    """
    overtaking = pb.Overtaking()
    if text.strip() == NO_OVERTAKING:
        return overtaking
    parts = [each.partition("=") for each in text.split(",")]
    found = {name.strip(): value.strip() for name, _, value in parts}
    needed = {"seats", "within"}
    if not needed <= set(found) <= needed | {"hold_back"} or len(parts) != len(found):
        raise InvalidArgument(
            f"{text[:100]!r} is neither seats=4,within=60 nor seats=4,within=60,hold_back=300 nor "
            f"{NO_OVERTAKING}"
        )
    seats = found["seats"]
    if not is_whole(seats):
        raise InvalidArgument(f"overtaking: seats={seats[:100]} is no whole number from 0 on")
    overtaking.seats = int(seats)
    overtaking.within.FromTimedelta(length_of("overtaking", "within", found["within"]))
    if (hold_back := found.get("hold_back")) is not None:
        overtaking.hold_back.FromTimedelta(length_of("overtaking", "hold_back", hold_back))
    return overtaking


def overtaking_text(overtaking: pb.Overtaking) -> str:
    """Return the text that `parse_overtaking` reads it from."""
    text = f"seats={overtaking.seats},within={exact_seconds(overtaking.within.ToTimedelta())}"
    if overtaking.HasField("hold_back"):
        text += f",hold_back={exact_seconds(overtaking.hold_back.ToTimedelta())}"
    return text


def with_projects(
    policy: pb.PoolPolicy,
    projects: Iterable[pb.ProjectShare],
    without: Collection[str],
    usage_half_life: timedelta | None = None,
    overtaking: pb.Overtaking | None = None,
    reclaim: pb.ReclaimRule | None = None,
) -> pb.PoolPolicy:
    """Return a policy with these projects in it or changed, and without those. The rest stays.

    ``usage_half_life``: None: as before, while there are projects; 0: none. ``overtaking`` and
    ``reclaim``: None: as before; empty: none.
    Raises `InvalidArgument` for a project to leave out that is not there.
    """
    there = {share.project: share for share in policy.projects}
    for name in without:
        if there.pop(name, None) is None:
            raise InvalidArgument(f"the pool lists no project {name}")
    there |= {share.project: share for share in projects}
    changed = pb.PoolPolicy()
    changed.CopyFrom(policy)
    del changed.projects[:]
    changed.projects.extend(there.values())
    if usage_half_life:
        changed.usage_half_life.FromTimedelta(usage_half_life)
    elif usage_half_life is not None or not there:
        changed.ClearField("usage_half_life")
    if overtaking is not None:
        changed.ClearField("overtaking")
        if overtaking.ByteSize():
            changed.overtaking.CopyFrom(overtaking)
    if reclaim is not None:
        changed.ClearField("reclaim")
        if reclaim.ByteSize():
            changed.reclaim.CopyFrom(reclaim)
    return changed


def _set(share: pb.ProjectShare, field: str, value: str) -> None:
    if field == "parent":
        share.parent = value
        return
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise InvalidArgument(
            f"project {share.project}: {field}={value[:100]} is no number from 0 on"
        )
    setattr(share, field, int(value))
