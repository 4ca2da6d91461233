"""Scenarios are read as they are written, and what cannot be read is reported with its line."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from seatkeeper.chaos import scenario as scenario_module
from seatkeeper.chaos.faults import Network, Users, described
from seatkeeper.chaos.library import FOLDER, find, read_folder
from seatkeeper.chaos.scenario import (
    SECONDS_MAX,
    TIMES_MAX,
    Calm,
    Injection,
    Repeat,
    Scenario,
    ScenarioError,
    Step,
    parse,
)

KNOWN = read_folder()
FAULTS = described(Network, Users)


def steps(text: str) -> tuple[Step, ...]:
    """Read steps, below a sentence: their first line is line 3."""
    return parse("mine", f"What it is about.\n\n{text}").steps


def refusal(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse("mine", text)
    return str(caught.value)


def test_the_example_of_the_documentation_is_read_as_it_is_meant() -> None:
    _, _, after = (scenario_module.__doc__ or "").partition("::\n\n")
    example = textwrap.dedent(after.partition("\nThe first paragraph")[0])

    assert parse("owner-dies", example) == Scenario(
        name="owner-dies",
        sentence="The node that decides for the pool dies, again and again.",
        steps=(Repeat(5, (Injection("KillNode.owner", 1.0), Calm(2.0))),),
        row="kill -9 service node (owner) mid batch",
        promises=("I1", "I2", "I3", "I4", "I6", "I8"),
    )


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("calm for 2 s", Calm(2.0)),
        ("calm for 0.25 s", Calm(0.25)),
        (f"calm for {SECONDS_MAX:.0f} s", Calm(SECONDS_MAX)),
        ("KillNode.owner for 1.5 s", Injection("KillNode.owner", 1.5)),
        ("KillNode.owner", Injection("KillNode.owner", 0.0)),
    ],
)
def test_a_line_is_a_step(line: str, step: Step) -> None:
    assert steps(line) == (step,)


def test_what_is_indented_belongs_to_the_line_above_it() -> None:
    reported = steps(
        """\
2 times
    Network.slow while
        3 times
            Users.die
            calm for 1 s
        calm for 2 s
    calm for 3 s
calm for 4 s
"""
    )

    thrice = Repeat(3, (Injection("Users.die"), Calm(1.0)))
    slow = Injection("Network.slow", during=(thrice, Calm(2.0)))
    assert reported == (Repeat(2, (slow, Calm(3.0))), Calm(4.0))


def test_comments_may_stand_anywhere() -> None:
    reported = parse(
        "mine",
        """\
# Found on a Tuesday.
It is about this,
# which is no wonder,
and that.

# Not a row: only for readers.
promises: I1

2 times
# Anywhere.
    calm for 1 s

        # Even here.
    calm for 2 s
""",
    )

    assert reported.sentence == "It is about this, and that."
    assert (reported.row, reported.promises) == ("", ("I1",))
    assert reported.steps == (Repeat(2, (Calm(1.0), Calm(2.0))),)


def test_row_and_promises_may_be_missing() -> None:
    reported = parse("mine", "About this.\n\ncalm for 1 s\n")
    assert (reported.row, reported.promises) == ("", ())


def test_it_may_say_who_is_at_work_and_what_must_have_happened() -> None:
    text = "About this.\n\nusers: policy\nneeds: gangs taken-back\n\ncalm for 2 s\n"
    reported = parse("mine", text)
    assert (reported.users, reported.needs) == ("policy", ("gangs", "taken-back"))
    usual = parse("mine", "About this.\n\ncalm for 2 s\n")
    assert (usual.users, usual.needs) == ("", ())


def test_its_length_counts_every_repetition_and_what_happens_during_a_fault() -> None:
    reported = parse(
        "mine",
        """\
About this.

3 times
    Network.slow while
        calm for 1 s
        2 times
            Users.freeze for 0.5 s
    calm for 2 s
calm for 4 s
""",
    )
    assert reported.seconds == 3 * (1.0 + 2 * 0.5 + 2.0) + 4.0


def test_its_faults_are_those_at_any_depth_once() -> None:
    reported = parse(
        "mine",
        """\
About this.

Network.slow while
    2 times
        Users.die
        Network.slow for 1 s
Users.freeze for 1 s
calm for 4 s
""",
    )
    assert reported.faults == {"Network.slow", "Users.die", "Users.freeze"}


WHAT_TO_WRITE = "`calm for 2 s`, `Fault.place for 2 s`, `Fault.place while`, or `5 times`"


@pytest.mark.parametrize(
    ("text", "where", "advice"),
    [
        ("", "mine", "the first paragraph must say what it is about; then an empty line"),
        ("\n\n\n", "mine", "the first paragraph must say what it is about"),
        ("calm for 2 s\n", "mine", "the first paragraph must say what it is about"),
        ("row: a row\n\ncalm for 2 s\n", "mine", "the first paragraph must say"),
        ("# Only this.\n\ncalm for 2 s\n", "mine", "the first paragraph must say"),
        ("About this.\ncalm for 2 s\n", "mine", "then an empty line"),
        ("About this.\n", "mine", "nothing happens in it; add a line such as: calm for 2 s"),
        ("About this.\n\nrow: x\n# calm for 2 s\n", "mine", "nothing happens in it"),
        ("About this.\n\npromises: I1 I11\ncalm for 2 s\n", "mine", "I11 is no promise; there"),
        ("About this.\n\npromises: I1, I2\ncalm for 2 s\n", "mine", "I1, is no promise; there"),
        (
            "About this.\n\nneeds: luck\ncalm for 2 s\n",
            "mine",
            "luck is not counted; what is: rec",
        ),
        ("A.\n\ncalm for 2 s\nbroken for 2 s\n", "line 4", "'broken for 2 s'"),
        ("A.\n\ncalm for 2 s\nbroken for 2 s\n", "line 4", WHAT_TO_WRITE),
        ("A.\n\ncalm for 2s\n", "line 3", WHAT_TO_WRITE),
        ("A.\n\ncalm for -2 s\n", "line 3", WHAT_TO_WRITE),
        ("A.\n\ncalm\n", "line 3", WHAT_TO_WRITE),
        ("A.\n\nslow for 2 s\n", "line 3", WHAT_TO_WRITE),
        ("A.\n\nNetwork.slow for 2 s while\n", "line 3", WHAT_TO_WRITE),
        ("A.\n\ntwo times\n    calm for 2 s\n", "line 3", WHAT_TO_WRITE),
        ("A.\n\ncalm for 2 s\nrow: too late\n", "line 4", "'row: too late'"),
        ("A\nB.\n\n# C\n\nnonsense\n", "line 6", "'nonsense'"),
        ("\n\nA.\n\nnonsense\n", "line 5", "'nonsense'"),
        (" \nA.\n  \n\nnonsense\n", "line 5", "'nonsense'"),
        ("A.\n\ncalm for 86401 s\n", "line 3", "at most 86400 s"),
        ("A.\n\nNetwork.slow for 1000000 s\n", "line 3", "at most 86400 s"),
        ("A.\n\n0 times\n    calm for 2 s\n", "line 3", f"from 1 to {TIMES_MAX} times"),
        ("A.\n\n10001 times\n    calm for 2 s\n", "line 3", f"from 1 to {TIMES_MAX} times"),
        ("A.\n\n5 times\ncalm for 2 s\n", "line 3", "below it, 4 spaces further in"),
        ("A.\n\ncalm for 1 s\nNetwork.slow while\n", "line 4", "below it, 4 spaces further in"),
        ("A.\n\n2 times\n    3 times\n    Users.die\n", "line 4", "4 spaces further in"),
        ("A.\n\ncalm for 2 s\n    calm for 2 s\n", "line 4", "below a line that has no room"),
        ("A.\n\n2 times\n        calm for 2 s\n", "line 4", "below a line that has no room"),
        ("A.\n\n    calm for 2 s\n", "line 3", "below a line that has no room"),
        ("A.\n\n2 times\n  calm for 2 s\n", "line 4", "indent by 4 spaces"),
        ("A.\n\n2 times\n    Users.die\n\tcalm for 2 s\n", "line 5", "indent by 4 spaces"),
    ],
)
def test_a_syntax_error_names_its_place_and_the_alternatives(
    text: str, where: str, advice: str
) -> None:
    reported = refusal(text)
    assert reported.startswith("mine")
    assert reported.partition(": ")[0].endswith(where)
    assert advice in reported


@pytest.mark.parametrize("scenario", KNOWN.values(), ids=lambda scenario: scenario.name)
def test_a_scenario_that_ships_has_a_sentence_and_only_faults_that_there_are(
    scenario: Scenario,
) -> None:
    assert scenario.sentence.endswith(".")
    assert "\n" not in scenario.sentence
    assert scenario.promises
    assert scenario.faults
    assert scenario.faults <= FAULTS.keys()
    assert 1.0 < scenario.seconds < 300.0


def test_every_file_of_the_folder_is_a_scenario_of_its_name() -> None:
    assert KNOWN
    assert {f"{name}.txt" for name in KNOWN} == {path.name for path in FOLDER.iterdir()}
    assert all(scenario.name == name for name, scenario in KNOWN.items())


def test_every_fault_says_what_it_does_and_is_used_by_a_scenario() -> None:
    assert all(sentence.endswith(".") for sentence in FAULTS.values())
    assert FAULTS.keys() == frozenset[str]().union(*(each.faults for each in KNOWN.values()))


def test_a_scenario_is_found_by_its_name() -> None:
    assert find("users-die", KNOWN) is KNOWN["users-die"]


@pytest.mark.parametrize("name", ["mine.txt", "mine", "mi.ne"])
def test_a_scenario_is_found_by_its_file_which_it_is_named_for(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text("About this.\n\ncalm for 1 s\n")
    assert find(str(file), KNOWN) == Scenario(file.stem, "About this.", (Calm(1.0),))


def test_a_name_that_nothing_has_is_answered_with_those_there_are() -> None:
    with pytest.raises(ScenarioError, match="no scenario is called users-dye") as caught:
        find("users-dye", KNOWN)
    assert all(known in str(caught.value) for known in KNOWN)


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"absent\.txt: cannot be read: .*No such file"):
        find(str(tmp_path / "absent.txt"), KNOWN)


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    binary, folder = tmp_path / "binary.txt", tmp_path / "folder"
    binary.write_bytes(b"\x7fELF\xff\xfe\n\n")
    folder.mkdir()
    for path in (binary, folder, tmp_path / ("x" * 300)):
        with pytest.raises(ScenarioError, match=f"{path}: cannot be read: "):
            find(str(path), KNOWN)


def test_a_file_that_is_no_scenario_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("About this.\n\nnonsense\n")
    with pytest.raises(ScenarioError, match="mine, line 3: not understood: 'nonsense'"):
        find(str(file), KNOWN)


def test_a_fault_by_the_name_that_it_had_is_the_same_fault() -> None:
    assert steps("Upgrade.rolling") == steps("Restart.rolling")
    assert steps("Upgrade.rolling while\n    calm for 1 s") == steps(
        "Restart.rolling while\n    calm for 1 s"
    )
