"""How wide the columns of a table are."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from superlink_trio.cli.columns import Columns, fitted

ID = "9223372036854775807"

cells = st.one_of(st.just(ID), st.just(f"-{ID}"), st.text("ab ", max_size=60))


def drawn(table: Columns, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_each_has_what_it_needs_where_there_is_room() -> None:
    table = Columns(("Node", "Name"), [(ID, "the ward at the end"), ("1", "")])
    assert drawn(table, 80) == [f"{'Node':<19}  Name", f"{ID}  the ward at the end", "1"]


def test_the_widest_gives_way_first() -> None:
    assert fitted([["x" * 20], ["x" * 30], ["x" * 10]], 45) == [17, 18, 10]


def test_no_id_gives_way() -> None:
    assert fitted([[ID], ["x" * 30], [f"of run {ID}, for 2 min"]], 50) == [19, 11, 20]
    assert fitted([[ID], [ID]], 20) == [19, 19]


def test_a_long_word_of_a_stranger_takes_no_more_than_an_id() -> None:
    assert fitted([[ID], ["1" * 60]], 45) == [19, 26]
    assert fitted([[ID], ["1" * 60]], 30) == [19, 21]


def test_what_would_drive_a_terminal_is_shown_as_text() -> None:
    assert (
        drawn(Columns(("Name",), [("\x1b[2J[bold]x[/bold]",)]), 80)[1] == r"\x1b[2J[bold]x[/bold]"
    )


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=4))
def test_no_line_is_longer_than_the_terminal(rows: list[tuple[str, str, str]]) -> None:
    lines = drawn(Columns(("Run", "Node", "What"), rows), 80)
    assert max(map(len, lines)) <= 80
    shown = "\n".join(lines)
    assert shown.count(ID) == sum(cell.count(ID) for row in rows for cell in row)
