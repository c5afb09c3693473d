from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.config.kinds import parse_size, size_text


@given(st.integers(0, 2**62))
def test_a_size_that_was_written_is_read_again(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(st.text())
def test_any_text_is_a_size_or_a_fault(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        assert "is no size" in str(error)  # noqa: PT017 (either is right)
