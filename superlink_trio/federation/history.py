"""What a run came to, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from superlink_trio.wire.runs import Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Losses: TypeAlias = list[tuple[int, float]]
Series: TypeAlias = dict[str, list[tuple[int, Scalar]]]

_TITLES = {
    "losses_distributed": "loss, federated evaluation",
    "losses_centralized": "loss, central evaluation",
    "metrics_distributed_fit": "training",
    "metrics_distributed": "federated evaluation",
    "metrics_centralized": "central evaluation",
}


class History:
    """Losses and metrics of a run; each value with the number of its round (0: initial model)."""

    def __init__(self) -> None:
        self.losses_distributed: Losses = []
        self.losses_centralized: Losses = []
        self.metrics_distributed_fit: Series = {}
        self.metrics_distributed: Series = {}
        self.metrics_centralized: Series = {}

    def add_loss_distributed(self, server_round: int, loss: float) -> None:
        """Add the loss of a federated evaluation."""
        self.losses_distributed.append((server_round, loss))

    def add_loss_centralized(self, server_round: int, loss: float) -> None:
        """Add the loss of a central evaluation."""
        self.losses_centralized.append((server_round, loss))

    def add_metrics_distributed_fit(self, server_round: int, metrics: Mapping[str, Scalar]) -> None:
        """Add the metrics of a round's training."""
        _add(self.metrics_distributed_fit, server_round, metrics)

    def add_metrics_distributed(self, server_round: int, metrics: Mapping[str, Scalar]) -> None:
        """Add the metrics of a federated evaluation."""
        _add(self.metrics_distributed, server_round, metrics)

    def add_metrics_centralized(self, server_round: int, metrics: Mapping[str, Scalar]) -> None:
        """Add the metrics of a central evaluation."""
        _add(self.metrics_centralized, server_round, metrics)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as lists and dicts of its own, ready for `json.dumps`.

        Each value is a list `[round, value]`. A metric may hold bytes, which JSON has no word for.
        """
        losses = ("losses_distributed", "losses_centralized")
        plain: dict[str, Any] = {name: list(map(list, getattr(self, name))) for name in losses}
        for name in ("metrics_distributed_fit", "metrics_distributed", "metrics_centralized"):
            series: Series = getattr(self, name)
            plain[name] = {key: list(map(list, values)) for key, values in series.items()}
        return plain

    def plot(self) -> Figure:
        """Draw every loss and every metric that is a number over the rounds.

        Needs matplotlib (`pip install matplotlib`) and opens no window:
        `history.plot().savefig("history.png")`.
        """
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(layout="constrained")
        loss_axes, metric_axes = figure.subplots(2, 1, sharex=True)
        for label, values in self._series():
            numbers = [(at, value) for at, value in values if isinstance(value, int | float)]
            axes = loss_axes if label.startswith("loss") else metric_axes
            if numbers:
                axes.plot(*zip(*numbers, strict=True), marker=".", label=label)
        for axes, name in ((loss_axes, "loss"), (metric_axes, "metrics")):
            axes.set_ylabel(name)
            if axes.get_lines():
                axes.legend()
        metric_axes.set_xlabel("round")
        metric_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure

    def _series(self) -> Iterator[tuple[str, list[tuple[int, Any]]]]:
        """Give every sequence that is not empty, with a title."""
        for attribute, title in _TITLES.items():
            values: Losses | Series = getattr(self, attribute)
            if isinstance(values, Mapping):
                yield from ((f"{name}, {title}", series) for name, series in values.items())
            elif values:
                yield title, values

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, History) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        lines = ["History:"]
        for title, values in self._series():
            lines.append(f"  {title}")
            lines += [f"    round {at}: {_shown(value)}" for at, value in values]
        return "\n".join(lines) if len(lines) > 1 else "History: empty"


def _add(series: Series, server_round: int, metrics: Mapping[str, Scalar]) -> None:
    for key, value in metrics.items():
        series.setdefault(key, []).append((server_round, value))


def _shown(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
