"""The run on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Bar:
    """A line on standard error that shows the round and how many of its clients have answered."""

    def __init__(self) -> None:
        # Drawn when there is something new: no thread that refreshes it. What is printed
        # meanwhile appears above it.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("waiting for clients", total=None)
        self._round = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        """Show the round's number."""
        self._round = f"round {server_round}/{num_rounds}"
        self._progress.update(self._task, description=self._round, refresh=True)

    def phase_begins(self, name: str, clients: int) -> None:
        """Begin to count."""
        self._progress.reset(self._task, total=clients, description=f"{self._round} {name}")
        self._progress.refresh()

    def answered(self) -> None:
        """Count one more."""
        self._progress.update(self._task, advance=1, refresh=True)
