"""Figures for Prometheus.

What happens in the path of calls is counted by plain numbers (`tally`). They become samples only
when somebody asks: at one moment all are copied, and a worker thread writes them down, so that no
call waits for a scrape.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import accumulate

import attrs
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from superlink_trio.admin.figures import Figures
from superlink_trio.admin.history import History, Part
from superlink_trio.admin.processes import Processes
from superlink_trio.admin.sources import Sources
from superlink_trio.admin.tally import Durations
from superlink_trio.state import Census, Work
from superlink_trio.state.messages import MessagesCensus
from superlink_trio.supervision import EventKind

_CALL = ("service", "method")


@attrs.frozen(kw_only=True)
class _Moment:
    """All figures, as they were at one moment."""

    parts: Mapping[str, Part]
    began: float
    well: bool
    figures: Figures
    census: Census | None
    workers: Mapping[int, int]


class Metrics:
    """The figures of one SuperLink, in a registry of its own."""

    def __init__(self, history: History, sources: Sources) -> None:
        self._history = history
        self._sources = sources

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """Write all figures down, in a form that the header `accept` names; give its type too."""
        moment = self._moment(await self._sources.census(), await self._sources.figures())
        encode, kind = choose_encoder(accept)
        return await trio.to_thread.run_sync(_write, moment, encode), kind

    def _moment(self, census: Census | None, figures: Figures) -> _Moment:
        history = self._history
        return _Moment(
            parts={path: attrs.evolve(part) for path, part in history.parts.items()},
            began=history.began,
            well=not history.faults(),
            figures=figures,
            census=census,
            workers=self._sources.workers(),
        )


def _write(moment: _Moment, encode: Callable[[Collector], bytes]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Collector(moment))
    registry.register(Processes(moment.workers))
    return encode(registry)


@attrs.frozen(eq=False)
class _Collector(Collector):
    """Gives what Prometheus' client writes down."""

    moment: _Moment

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        figures = self.moment.figures
        yield from _parts(self.moment)
        yield from _calls(figures)
        yield from _stored(self.moment.census, figures.stored_limit)
        if figures.flower is not None:
            yield from _flower(figures.flower)
        if figures.work is not None:
            yield from _work(figures.work)
        yield _histogram(
            "superlink_loop_lag_seconds",
            "How late Trio's loop woke a task that was due, looked at four times a second.",
            [((), figures.lag)],
        )


def _parts(moment: _Moment) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "superlink_build",
        "What runs here.",
        {"version": version("superlink-trio"), "python": platform.python_version()},
    )
    yield GaugeMetricFamily(
        "superlink_start_time_seconds", "When it was started, in Unix seconds.", moment.began
    )
    yield GaugeMetricFamily(
        "superlink_ready", "1 while every part is ready, as /readyz says.", int(moment.well)
    )
    up = GaugeMetricFamily("superlink_part_ready", "1 while a part is ready.", labels=["part"])
    restarts = CounterMetricFamily(
        "superlink_part_restarts", "How often a part was restarted.", labels=["part"]
    )
    for path, part in moment.parts.items():
        up.add_metric([path], int(part.state is EventKind.READY))
        restarts.add_metric([path], part.restarts)
    yield from (up, restarts)


def _calls(figures: Figures) -> Iterator[Metric]:
    counter, gauge = partial(CounterMetricFamily, labels=_CALL), GaugeMetricFamily
    now = gauge("superlink_calls_in_progress", "Calls under way, held ones included.", labels=_CALL)
    received = counter("superlink_call_received_bytes", "Bytes of requests of ended calls.")
    sent = counter("superlink_call_sent_bytes", "Bytes of answers of ended calls.")
    refused = counter(
        "superlink_calls_refused",
        "Calls that were refused: by the option whose limit was reached, `authentication`,"
        " `database`, or the status.",
        labels=[*_CALL, "reason"],
    )
    ended = []
    for name, method in figures.methods.items():
        now.add_metric(name, method.in_progress)
        received.add_metric(name, method.received)
        sent.add_metric(name, method.sent)
        for reason, count in method.refused.items():
            refused.add_metric([*name, reason], count)
        ended += [((*name, status), durations) for status, durations in method.ended.items()]
    held = gauge("superlink_calls_held", "Calls held until there is an answer.", labels=["service"])
    for service, count in figures.held.items():
        held.add_metric([service], count)
    yield from (now, held, received, sent, refused)
    yield _histogram(
        "superlink_call_duration_seconds",
        "How long calls took that have ended, whatever of that they were held.",
        ended,
        [*_CALL, "status"],
    )


def _stored(census: Census | None, limit: float | None) -> Iterator[Metric]:
    gauge: Callable[..., GaugeMetricFamily] = GaugeMetricFamily
    yield gauge("superlink_state_available", "0 while the store fails.", int(census is not None))
    if limit is not None:
        yield gauge("superlink_stored_limit_bytes", "What --max-stored-size allows.", limit)
    if census is None:
        return
    yield gauge("superlink_nodes", "Nodes that are registered.", census.nodes)
    yield gauge("superlink_nodes_online", "Nodes that are online.", census.nodes_online)
    yield gauge("superlink_runs", "Runs that are stored.", census.runs)
    tasks = gauge(
        "superlink_tasks", "Tasks that are stored, by how far they are.", labels=["state"]
    )
    oldest = gauge(
        "superlink_task_oldest_age_seconds",
        "For how long the oldest task of a state is stored.",
        labels=["state"],
    )
    for state, counted in census.tasks.items():
        label = [state.value.replace(" ", "_")]
        tasks.add_metric(label, counted.count)
        oldest.add_metric(label, counted.oldest)
    yield from (tasks, oldest)
    yield gauge("superlink_payloads", "Payloads, equal ones counted once.", census.payloads.count)
    yield gauge("superlink_payload_bytes", "Bytes of these payloads.", census.payloads.size)
    yield gauge(
        "superlink_payload_saved_bytes",
        "Bytes that are not stored because equal payloads are kept once.",
        census.shared_bytes,
    )
    yield gauge(
        "superlink_stored_bytes", "Bytes that count against --max-stored-size.", census.stored_bytes
    )


def _flower(census: MessagesCensus) -> Iterator[Metric]:
    gauge = GaugeMetricFamily
    yield gauge("superlink_supernodes", "SuperNodes that are registered.", census.nodes)
    yield gauge("superlink_supernodes_online", "SuperNodes that are online.", census.nodes_online)
    runs = gauge("superlink_app_runs", "Runs of apps that are not over.", labels=["status"])
    for status, count in census.runs.items():
        runs.add_metric([status.value], count)
    yield runs


def _work(work: Work) -> Iterator[Metric]:
    counter = CounterMetricFamily
    yield counter("superlink_store_commits", "Commits of the database.", work.commits)
    yield counter("superlink_store_steps", "Changes and readings that these held.", work.steps)
    yield counter("superlink_store_sweeps", "Clean-ups of the database.", work.sweeps)
    yield GaugeMetricFamily(
        "superlink_store_commit_age_seconds",
        "For how long the commit under way has been; calls wait for it.",
        work.commit_age,
    )


def _histogram(
    name: str,
    documentation: str,
    series: Iterable[tuple[Sequence[str], Durations]],
    labels: Sequence[str] = (),
) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=labels)
    for values, durations in series:
        bounds = [*map(repr, durations.bounds), "+Inf"]
        counts = accumulate(durations.counts)
        family.add_metric(values, list(zip(bounds, counts, strict=True)), sum_value=durations.sum)
    return family
