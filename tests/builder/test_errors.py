"""Every way to have no engine is distinguished, and survives the way out of the worker."""

from __future__ import annotations

import pytest

from seatkeeper.artifacts import errors
from seatkeeper.artifacts.errors import (
    ERRORS_BY_CODE,
    BuildError,
    ModelError,
    error_from_fields,
    error_to_fields,
)


@pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
def test_every_leaf_says_what_to_do_next(code: str) -> None:
    leaf = ERRORS_BY_CODE[code]
    assert leaf.advice.endswith(".")
    assert leaf("The disk is full.").explain() == f"The disk is full. {leaf.advice}"


@pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
def test_every_leaf_is_drawn_in_the_tree(code: str) -> None:
    assert f"── {ERRORS_BY_CODE[code].__name__} " in (errors.__doc__ or "")


@pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
def test_an_error_is_the_same_on_the_other_side(code: str) -> None:
    error = ERRORS_BY_CODE[code]("what happened", stderr_tail="the stderr tail")
    copy = error_from_fields(error_to_fields(error))
    assert type(copy) is type(error)
    assert error_to_fields(copy) == error_to_fields(error)


def test_no_two_leaves_share_a_code() -> None:
    def leaves(cls: type[BuildError]) -> list[str]:
        return [cls.code] * bool(cls.code) + [
            code for child in cls.__subclasses__() for code in leaves(child)
        ]

    assert sorted(leaves(BuildError)) == sorted(ERRORS_BY_CODE)


def test_only_leaves_are_raised() -> None:
    with pytest.raises(AssertionError, match="raise a leaf"):
        ModelError("something is wrong")


def test_a_code_that_no_leaf_has_is_not_guessed() -> None:
    with pytest.raises(KeyError):
        error_from_fields({"code": "new_code", "message": ""})


@pytest.mark.parametrize("letter", ["m", "\u5ea7", "\udc80"])
def test_a_compiler_that_quotes_its_graph_does_not_fill_the_wire(letter: str) -> None:
    error = ERRORS_BY_CODE["compiler_crashed"](letter * 10**5, stderr_tail=letter * 10**5 + "z")
    assert error.message == str(error)
    assert 0 < len(error.message.encode()) <= errors.MESSAGE_BYTES_MAX
    assert error.stderr_tail.endswith("z")
    assert len(error.stderr_tail.encode()) <= errors.STDERR_TAIL_BYTES_MAX
