from __future__ import annotations

import io
import json

import pytest

from superlink_trio.federation import History


@pytest.fixture
def history() -> History:
    history = History()
    history.add_loss_centralized(0, 0.5)
    history.add_loss_distributed(1, 0.25)
    history.add_metrics_distributed_fit(1, {"accuracy": 0.75, "note": "fine"})
    history.add_metrics_distributed(1, {"accuracy": 0.5})
    history.add_metrics_centralized(0, {"accuracy": 0.125})
    history.add_metrics_centralized(1, {"accuracy": 1 / 3})
    return history


def test_values_stand_with_their_rounds(history: History) -> None:
    assert history.losses_centralized == [(0, 0.5)]
    assert history.losses_distributed == [(1, 0.25)]
    assert history.metrics_distributed_fit == {"accuracy": [(1, 0.75)], "note": [(1, "fine")]}
    assert history.metrics_distributed == {"accuracy": [(1, 0.5)]}
    assert history.metrics_centralized == {"accuracy": [(0, 0.125), (1, 1 / 3)]}


def test_it_reads_well(history: History) -> None:
    assert repr(history).splitlines() == [
        "History:",
        "  loss, federated evaluation",
        "    round 1: 0.25",
        "  loss, central evaluation",
        "    round 0: 0.5",
        "  accuracy, training",
        "    round 1: 0.75",
        "  note, training",
        "    round 1: 'fine'",
        "  accuracy, federated evaluation",
        "    round 1: 0.5",
        "  accuracy, central evaluation",
        "    round 0: 0.125",
        "    round 1: 0.333333",
    ]
    assert repr(History()) == "History: empty"


def test_it_goes_into_json(history: History) -> None:
    assert json.loads(json.dumps(history.to_dict())) == {
        "losses_distributed": [[1, 0.25]],
        "losses_centralized": [[0, 0.5]],
        "metrics_distributed_fit": {"accuracy": [[1, 0.75]], "note": [[1, "fine"]]},
        "metrics_distributed": {"accuracy": [[1, 0.5]]},
        "metrics_centralized": {"accuracy": [[0, 0.125], [1, 1 / 3]]},
    }


def test_its_dict_is_a_copy(history: History) -> None:
    history.to_dict()["metrics_distributed"]["accuracy"].clear()
    assert history.metrics_distributed == {"accuracy": [(1, 0.5)]}


def test_it_is_drawn(history: History) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    figure = history.plot()
    labels = [line.get_label() for axes in figure.axes for line in axes.get_lines()]
    assert labels == [
        "loss, federated evaluation",
        "loss, central evaluation",
        "accuracy, training",
        "accuracy, federated evaluation",
        "accuracy, central evaluation",
    ]
    picture = io.BytesIO()
    figure.savefig(picture)
    assert picture.getvalue().startswith(b"\x89PNG")
