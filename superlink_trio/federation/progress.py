"""Who watches a run, and what it is called with."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Notified of every step of a run; called on the event loop, so it must not block."""

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        """Handle the begin of a round."""

    def phase_begins(self, name: str, clients: int) -> None:
        """Handle the begin of a phase, `fit` or `evaluate`, with so many clients."""

    def answered(self) -> None:
        """Handle the answer of one of them, or its failure."""


class Unobserved:
    """An observer for runs that nobody watches."""

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        """Do nothing."""

    def phase_begins(self, name: str, clients: int) -> None:
        """Do nothing."""

    def answered(self) -> None:
        """Do nothing."""
