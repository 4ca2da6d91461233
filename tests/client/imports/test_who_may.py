"""Who may use a pool is who may use the feature, by a second rule that looks at lines alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.imports.cases import DIALECTS, TODAY

from seatkeeper.client.imports import FLEXNET, RLM, Became, Translation, translate
from seatkeeper.client.pools_file import read_pools
from seatkeeper.core.pool_rule_faults import GROUPS_MAX, NAMES_MAX
from seatkeeper.core.pool_rules import HolderGroup, PoolRules, Who
from seatkeeper.v1 import pool_service_pb2 as pb

FEATURES = ("f", "g")
USERS = ("ada", "bo", "carl", "ad")
PROJECTS = ("p", "q")
GROUPS = {"one": ("ada", "bo"), "two": ("carl",)}
whom = (
    st.tuples(st.just("USER"), st.sampled_from(USERS))
    | st.tuples(st.just("GROUP"), st.sampled_from(sorted(GROUPS)))
    | st.tuples(st.just("PROJECT"), st.sampled_from(PROJECTS))
)
rules = st.lists(
    st.tuples(st.sampled_from(["INCLUDE", "EXCLUDE"]), st.sampled_from((*FEATURES, "")), whom),
    max_size=8,
)


def licences(dialect: str) -> list[str]:
    """A licence of each feature."""
    if dialect == "flexnet":
        return [f"INCREMENT {name} v 1.0 permanent 3" for name in FEATURES]
    return [f"LICENSE v {name} 1.0 permanent 3" for name in FEATURES]


def found_of(dialect: str, lines: list[str]) -> Translation:
    """What comes of lines beside the licences."""
    text = "\n".join([*licences(dialect), *lines])
    return translate(DIALECTS[dialect], [("v.opt", text.encode())], today=TODAY)


def rules_of(found: Translation, pool: str) -> PoolRules:
    """The rules of a pool, as nodes read them."""
    read = read_pools(found.text.encode())
    assert read.faults == ()
    message = read.pools[pool].policy.rules

    def who(part: pb.Who) -> Who:
        return Who(tuple(part.projects), tuple(part.holders), tuple(part.groups))

    groups = tuple(HolderGroup(each.name, tuple(each.holders)) for each in message.groups)
    return PoolRules(groups, who(message.include), who(message.exclude))


@settings(deadline=None)
@given(
    dialect=st.sampled_from(sorted(DIALECTS)),
    said=rules,
    user=st.sampled_from((*USERS, "eva")),
    project=st.sampled_from((*PROJECTS, "r")),
    host=st.sampled_from(["", "@pc1", "@ada"]),
)
def test_who_is_let_in_is_who_was(
    dialect: str,
    said: list[tuple[str, str, tuple[str, str]]],
    user: str,
    project: str,
    host: str,
) -> None:
    lines = [
        f"{keyword} {feature} {kind} {who}" if feature else f"{keyword}ALL {kind} {who}"
        for keyword, feature, (kind, who) in said
    ]
    lines += [f"GROUP {name} {' '.join(members)}" for name, members in GROUPS.items()]
    found = found_of(dialect, lines)

    def is_meant(kind: str, who: str) -> bool:
        if kind == "GROUP":
            return user in GROUPS[who]
        return who == (user if kind == "USER" else project)

    for pool in FEATURES:
        about = [(key, each) for key, feature, each in said if feature in ("", pool)]
        lists = {key: [is_meant(*each) for at, each in about if at == key] for key, _ in about}
        is_out = any(lists.get("EXCLUDE", []))
        is_in = not lists.get("INCLUDE") or any(lists["INCLUDE"])
        decided = rules_of(found, pool).broken_by(user + host, project, 1)
        assert (decided is None) == (is_in and not is_out), (pool, lines)


def test_what_has_no_room_is_named_and_what_keeps_out_comes_first() -> None:
    lines = [f"INCLUDE f USER u{number}" for number in range(NAMES_MAX)]
    found = found_of("flexnet", [*lines, "EXCLUDE f USER mallory"])
    decided = rules_of(found, "f")
    assert decided.broken_by("mallory@pc1", "", 1) == "exclude"
    lost = [each for each in found.outcomes if each.became is Became.NONE]
    assert len(lost) == 1
    assert lost[0].statement.rest[2] == f"u{NAMES_MAX - 1}"
    assert f"at most {NAMES_MAX} names" in lost[0].reasons[0]
    assert decided.broken_by(f"u{NAMES_MAX - 2}@pc1", "", 1) is None
    assert decided.broken_by(f"u{NAMES_MAX - 1}@pc1", "", 1) == "include"


def test_more_groups_than_a_pool_has_are_named() -> None:
    lines = [f"GROUP g{at} u{at}\nEXCLUDE f GROUP g{at}" for at in range(GROUPS_MAX + 1)]
    found = found_of("flexnet", lines)
    assert len(rules_of(found, "f").groups) == GROUPS_MAX
    of_group = [each for each in found.outcomes if each.statement.rest[-1] == f"g{GROUPS_MAX}"]
    assert [each.became for each in of_group] == [Became.NONE]
    (group,) = (each for each in found.outcomes if each.statement.rest[0] == f"g{GROUPS_MAX}")
    assert group.became is Became.NOT_NEEDED


def test_names_that_holders_cannot_have_are_named() -> None:
    for name, why in (("u" * 252, "253 characters"), ("a\u202eb", "cannot be shown")):
        found = found_of("flexnet", [f"EXCLUDE f USER {name}"])
        (lost,) = found.of(Became.NONE)
        assert why in lost.reasons[0]
        assert rules_of(found, "f") == PoolRules()


def test_rules_of_more_than_a_file_of_pools_are_refused() -> None:
    lines = [f"INCREMENT f{at} v 1 permanent 1" for at in range(900)]
    lines += [f"EXCLUDEALL USER {'u' * 200}{at}" for at in range(9)]
    found = translate(FLEXNET, [("f", "\n".join(lines).encode())], today=TODAY)
    assert not found.text
    assert "rules of who may use pools have more than" in str(found.refusals[0])


@pytest.mark.parametrize("line", ["INCLUDE status USER ada", "EXCLUDEALL HOST pc1"])
def test_options_of_the_server_itself_are_not_of_pools(line: str) -> None:
    files = [("a.lic", b"LICENSE v f 1.0 permanent 3"), ("etc\\RLM.opt", line.encode())]
    found = translate(RLM, files, today=TODAY)
    assert [each.became for each in found.outcomes] == [Became.TRANSLATED, Became.NOT_NEEDED]
