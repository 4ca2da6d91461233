"""Scripts, values and patterns mean what README.md says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.matching import Mismatch, match, matches
from tests.conformance.script import (
    CLIENT_VERBS,
    SERVER_VERBS,
    SIDES,
    Script,
    scripts,
    verb_of,
)
from tests.conformance.values import ScriptError, fill, new_id
from tests.conformance.wire import Method, status_details, status_of

HERE = Path(__file__).parent
SCHEMA: dict[str, Any] = json.loads((HERE / "script.schema.json").read_text())


@pytest.mark.parametrize("side", SIDES)
def test_every_script_can_be_read_and_says_what_it_is_about(side: str) -> None:
    for script in scripts(side):
        assert script.title
        assert script.covers
        assert script.steps


@pytest.mark.parametrize(
    ("definition", "verbs"),
    [("serverStep", SERVER_VERBS), ("clientStep", CLIENT_VERBS)],
    ids=["server", "client"],
)
def test_the_schema_has_the_verbs_and_keys_that_the_runner_takes(
    definition: str, verbs: dict[str, set[str]]
) -> None:
    reported = {
        step["title"]: set(step["properties"]) - {step["title"], "note"}
        for step in SCHEMA["$defs"][definition]["oneOf"]
    }
    assert reported == dict(verbs)


def test_the_page_names_every_verb_pattern_and_value() -> None:
    page = (HERE / "README.md").read_text()
    from tests.conformance.matching import _OPERATORS

    for word in {*SERVER_VERBS, *CLIENT_VERBS}:
        assert f"`{word}:" in page
    for word in {*_OPERATORS, "$id", "$bytes", "$name", "$repeat", "$sum", "$for", "$unknown"}:
        assert word in page


def test_a_step_with_a_key_that_no_verb_has_is_refused() -> None:
    with pytest.raises(ScriptError, match="expct"):
        verb_of({"call": "PoolService.GetPool", "expct": {}}, SERVER_VERBS)


def test_a_script_with_a_mistake_names_file_and_step(tmp_path: Path) -> None:
    path = tmp_path / "server" / "wrong.json"
    path.parent.mkdir()
    path.write_text('{"title": "t", "covers": ["x"], "steps": [{"let": {}}, {"jump": 1}]}')
    with pytest.raises(ScriptError, match=r"wrong\.json: step 2: \['jump'\]"):
        Script.read(path)


@pytest.mark.parametrize(
    ("pattern", "value", "good"),
    [
        ({"a": 1}, {"a": "1", "b": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": {"$absent": True}}, {"b": 1}, True),
        ({"a": {"$absent": True}}, {"a": None}, False),
        ({"$ge": 2, "$lt": 3}, "2.5s", True),
        ({"$ge": 2}, True, False),
        ([1, 2], [1, 2, 3], False),
        ({"$contains": [1, 1]}, [1, 2], False),
        ({"$unordered": [2, 1]}, [1, 2], True),
        ({"$in": ["x", {"$regex": "^y"}]}, "yes", True),
        ({"$not": "x"}, "x", False),
        ({"$length": {"$ge": 2}}, "ab", True),
        ({}, [], False),
        (True, 1, False),
        ("1", 1, True),
    ],
    ids=repr,
)
def test_patterns(pattern: object, value: object, good: bool) -> None:
    assert matches(pattern, value, {}) is good


def test_what_is_bound_is_compared_and_kept_only_when_all_matches() -> None:
    bindings: dict[str, Any] = {}
    assert not matches({"a": {"$bind": "x"}, "b": 2}, {"a": 1, "b": 3}, bindings)
    assert bindings == {}
    match({"a": {"$bind": "x"}, "b": "${x}"}, {"a": 5, "b": "5"}, bindings)
    with pytest.raises(Mismatch, match=r"a is 6, not \$\{x\} 5"):
        match({"a": {"$bind": "x"}}, {"a": 6}, bindings)


def test_what_only_grows_is_remembered_over_steps() -> None:
    bindings: dict[str, Any] = {}
    match({"$increasing": "f"}, "7", bindings)
    assert not matches({"$increasing": "f"}, 7, bindings)
    match({"$increasing": "f"}, 8, bindings)


def test_values_are_filled_in() -> None:
    bindings = {"n": {"id": "x"}, "k": 3}
    assert fill("${n.id}", bindings) == "x"
    assert fill("a-${k}", bindings) == "a-3"
    assert fill("${k}", bindings) == 3
    assert fill([{"$for": "i", "from": 1, "to": 2, "item": {"v": "${i}"}}, 9], bindings) == [
        {"v": 1},
        {"v": 2},
        9,
    ]
    with pytest.raises(ScriptError, match="unknown"):
        fill("${unknown}", bindings)


def test_ids_are_of_the_time_asked_for() -> None:
    ahead = int(new_id(3600.0)[:8] + new_id(3600.0)[9:13], 16)
    assert 3590_000 < ahead - int(new_id()[:8] + new_id()[9:13], 16) < 3610_000


def test_a_duration_may_be_out_of_range_and_fields_of_tomorrow_be_added() -> None:
    method = Method.named("SeatService.Acquire")
    data = method.request({"acquire": {"wait": {"seconds": 1, "nanos": 2_000_000_000}}})
    assert data.endswith(b"\x08\x01\x10\x80\xa8\xd6\xb9\x07")
    assert method.request({"raw": "CgUA"}) == b"\x0a\x05\x00"
    assert method.request({"$unknown": "mgYDYWJj"}) == b"\x9a\x06\x03abc"
    with pytest.raises(ScriptError, match="sets"):
        method.request({"acquire": {"sets": 1}})


def test_a_status_goes_there_and_back() -> None:
    import grpc

    status = {
        "code": "NOT_FOUND",
        "message": "no",
        "reason": "DENIAL_REASON_SESSION_LOST",
        "retry_after": 1.5,
        "resource": {"type": "session", "name": "x"},
    }
    metadata = [("other", "x"), ("grpc-status-details-bin", status_details(status))]
    seen = status_of(grpc.StatusCode.NOT_FOUND, "no", metadata)
    assert seen["domain"] == "seatkeeper"
    assert {key: seen[key] for key in status} == status
