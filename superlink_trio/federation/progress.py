"""What a run tells while it goes on, to whom it may concern."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told every step of a run; called on the event loop, so it must not block."""

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        """Note that a round begins."""

    def phase_begins(self, name: str, clients: int) -> None:
        """Note that so many clients are asked; `name` is `fit` or `evaluate`."""

    def answered(self) -> None:
        """Note that one of them has answered, or failed."""


class Unobserved:
    """An observer for runs that nobody watches."""

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        """Do nothing."""

    def phase_begins(self, name: str, clients: int) -> None:
        """Do nothing."""

    def answered(self) -> None:
        """Do nothing."""
