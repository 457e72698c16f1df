"""The mutants keep up with the code; `python -m tests.mutants` runs them."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, UnfitError, find_tests, mutate, replace


def test_every_mutant_fits_the_code_and_names_a_test() -> None:
    assert {mutant.by for mutant in MUTANTS} - find_tests().keys() == set()
    for mutant in MUTANTS:
        mutate(mutant, ROOT)


@pytest.mark.parametrize("old", ["c()", "a(b)"])
def test_a_piece_that_is_not_there_exactly_once_is_refused(old: str) -> None:
    with pytest.raises(UnfitError, match="times in"):
        replace("if a(b):\n    a(b)", old, "pass")


def test_further_lines_take_the_indentation_of_the_piece() -> None:
    assert replace("if a:\n    b()", "b()", "b()\nif c:\n    d()") == (
        "if a:\n    b()\n    if c:\n        d()"
    )
