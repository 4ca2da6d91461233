"""Projects of a pool as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.client.admin.projects import (
    overtaking_text,
    parse_overtaking,
    parse_project,
    project_text,
    with_projects,
)
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("cv", pb.ProjectShare(project="cv")),
        ("cv:", pb.ProjectShare(project="cv")),
        (
            " cv : guaranteed = 4, limit=8,weight=2,parent=lab,",
            pb.ProjectShare(project="cv", guaranteed=4, limit=8, weight=2, parent="lab"),
        ),
        ("cv:limit=0", pb.ProjectShare(project="cv", limit=0)),
    ],
)
def test_what_people_write(text: str, share: pb.ProjectShare) -> None:
    assert parse_project(text) == share


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no project"),
        (":limit=1", "names no project"),
        ("cv:limit", "'limit' is none of guaranteed="),
        ("cv:seats=1", "'seats=1' is none of"),
        ("cv:limit=-1", "limit=-1 is no number"),
        ("cv:limit=1.5", "limit=1.5 is no number"),
        ("cv:limit=\u0661", "is no number"),
        ("cv:limit=9999999999", "is no number"),
        ("cv:limit=1,limit=2", "limit is given twice"),
    ],
)
def test_what_cannot_be_read(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        parse_project(text)


names = st.from_regex(r"[a-z][a-z0-9._-]{0,10}", fullmatch=True)


@given(
    st.builds(
        pb.ProjectShare,
        project=names,
        guaranteed=st.integers(0, 1000),
        limit=st.none() | st.integers(0, 1000),
        weight=st.integers(1, 1000),
        parent=st.just("") | names,
    )
)
def test_text_says_all_of_a_project(share: pb.ProjectShare) -> None:
    assert parse_project(project_text(share)) == share


def test_projects_are_added_changed_and_left_out_and_the_rest_stays() -> None:
    cv, nlp = pb.ProjectShare(project="cv", limit=1), pb.ProjectShare(project="nlp")
    policy = pb.PoolPolicy(projects=[cv, nlp])
    changed = pb.ProjectShare(project="cv", limit=2)
    asr = pb.ProjectShare(project="asr")
    found = with_projects(policy, [changed, asr], ["nlp"])
    assert [*found.projects] == [changed, asr]
    assert [*policy.projects] == [cv, nlp]
    with pytest.raises(InvalidArgument, match="lists no project speech"):
        with_projects(policy, [], ["speech"])


def test_overtaking_is_read_and_written() -> None:
    read = parse_overtaking("seats=4, within=60")
    assert (read.seats, read.within.ToSeconds()) == (4, 60)
    assert overtaking_text(read) == "seats=4,within=60"
    assert parse_overtaking("seats=4,within=1m") == read
    assert parse_overtaking("none") == pb.Overtaking()
    kept = parse_overtaking("seats=0,within=60,hold_back=300")
    assert (kept.seats, kept.hold_back.ToSeconds()) == (0, 300)
    for text in (
        *("seats=4,within=1234567", "seats=1,within=600.25"),
        "seats=0,within=60,hold_back=1.5",
    ):
        assert overtaking_text(parse_overtaking(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "seats=4",
        "seats=4,within=1x",
        "seats=4,within=",
        "seats=-1,within=2",
        "seats=4,within=6,seats=5",
        "s eats=4,within=6",
        "seats=4,within=0.1234567",
        "seats=4,within=60,hold_back=-1m",
        "seats=4,hold_back=60",
        "seats=4,within=60,hold_back=1,hold_back=2",
    ],
)
def test_what_overtaking_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"overtaking|seats=4,within=60"):
        parse_overtaking(text)


def test_overtaking_is_changed_apart_from_projects() -> None:
    policy = pb.PoolPolicy(overtaking=parse_overtaking("seats=4,within=60"))
    listed = with_projects(policy, [parse_project("cv")], ())
    assert listed.overtaking == policy.overtaking
    assert with_projects(listed, (), ["cv"]).overtaking == policy.overtaking
    assert not with_projects(listed, (), (), overtaking=pb.Overtaking()).HasField("overtaking")
