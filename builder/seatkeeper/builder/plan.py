"""An older name of `seatkeeper.artifacts.plan`, kept for those who import it."""

from seatkeeper.artifacts.plan import (
    BuildPlan,
    Profile,
    ProfileShape,
    canonical_target,
    check_targets,
    engine_key,
    format_profile,
    parse_profile,
    plan_from_options,
    plan_to_options,
)

__all__ = [
    "BuildPlan",
    "Profile",
    "ProfileShape",
    "canonical_target",
    "check_targets",
    "engine_key",
    "format_profile",
    "parse_profile",
    "plan_from_options",
    "plan_to_options",
]
