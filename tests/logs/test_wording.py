from __future__ import annotations

from collections import Counter

import pytest

from superlink_trio.logs.wording import counted, described, leaves, tallied


@pytest.mark.parametrize(("number", "text"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_one_is_no_plural(number: int, text: str) -> None:
    assert counted(number, "node") == text


def test_a_plural_of_its_own() -> None:
    assert counted(1, "process", "processes") == "1 process"
    assert counted(2, "process", "processes") == "2 processes"


def test_of_many_reasons_the_most_frequent_are_told() -> None:
    reasons = Counter({"one": 1, "two": 2, "three": 3, "four": 4})
    assert tallied(reasons) == "four (4 times); three (3 times); two (2 times)"
    assert tallied(Counter(["once"])) == "once"


def test_groups_are_nothing_but_what_is_in_them() -> None:
    one, two = ValueError("one"), OSError("two")
    group = BaseExceptionGroup("", [BaseExceptionGroup("", [one]), two])
    assert list(leaves(group)) == [one, two]
    assert list(leaves(one)) == [one]
    assert list(leaves(None)) == []


def test_errors_in_words() -> None:
    assert described(OSError(98, "Address already in use")) == "Address already in use"
    assert described(FileNotFoundError(2, "No such file", "state.db")) == "state.db: No such file"
    assert described(KeyError()) == "KeyError"
    error = ValueError("is bad")
    error.add_note("needed by the Fleet API")
    assert described(error) == "is bad; needed by the Fleet API"
