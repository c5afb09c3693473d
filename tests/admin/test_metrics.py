"""Figures for Prometheus: of a running SuperLink, and of a state that is slow or broken."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest
import trio
from operators import get, watched_config
from peering.client import Client, NotAnswered, over_grpc
from peering.messages import task_ins, task_res
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from superlink_trio import SuperLink, run_superlink
from superlink_trio.admin import CallTally, Counts, History, OwnSources, Rates
from superlink_trio.admin.metrics import Metrics
from superlink_trio.state import Census, MemoryState, StateUnavailable

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
async def link(nursery: trio.Nursery, tmp_path: Path) -> SuperLink:
    config = watched_config(database=str(tmp_path / "state.db"), hold=0, port=0)
    link: SuperLink = await nursery.start(run_superlink, config)
    return link


def samples(page: str) -> Mapping[str, float]:
    """Give what a page says by name and labels (in the order of their names), `name{a,b}`."""
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = ",".join(value for _, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def scraped(link: SuperLink) -> Mapping[str, float]:
    status, page = await get(link, "/metrics")
    assert status == 200
    return samples(page)


async def test_it_counts_what_happens(link: SuperLink) -> None:
    def one_round() -> None:
        driver = Client(over_grpc(str(link.driver_address), "Driver"))
        node = Client(over_grpc(str(link.fleet_address), "Fleet"))
        me, run_id = node.create_node(), driver.create_run()
        driver.push_tasks([task_ins(run_id, me, b"weights"), task_ins(run_id, me, b"weights")])
        [task] = node.pull_tasks(me)
        node.push_results([task_res(task, b"result")])

    await trio.to_thread.run_sync(one_round)
    found = await scraped(link)
    assert found["superlink_ready{}"] == 1
    assert found["superlink_state_available{}"] == 1
    assert found["superlink_nodes_online{}"] == 1
    assert found["superlink_runs{}"] == 1
    assert found["superlink_supernodes{}"] == found["superlink_supernodes_online{}"] == 0
    assert found["superlink_app_runs{pending}"] == found["superlink_app_runs{running}"] == 0
    assert found["superlink_tasks{queued}"] == 1
    assert found["superlink_tasks{answered}"] == 1
    assert found["superlink_call_duration_seconds_count{PushTaskIns,flwr.proto.Driver,OK}"] == 1
    assert found["superlink_call_received_bytes_total{PushTaskIns,flwr.proto.Driver}"] > 14
    assert found["superlink_calls_held{flwr.proto.Fleet}"] == 0
    assert found["superlink_store_steps_total{}"] >= found["superlink_store_commits_total{}"] > 1
    assert found["superlink_store_sweeps_total{}"] >= 1
    assert found["superlink_part_restarts_total{superlink/apis/fleet}"] == 0
    assert found["superlink_part_ready{superlink/apis/fleet}"] == 1
    assert found["process_resident_memory_bytes{}"] > 1e7
    await link.stop()


async def test_it_speaks_openmetrics_to_who_asks_for_it(link: SuperLink) -> None:
    kind = "application/openmetrics-text; version=1.0.0"
    _, page = await get(link, "/metrics", Accept=kind)
    assert page.endswith("# EOF\n")
    await link.stop()


class Slow(MemoryState):
    """A state that takes its time to count, and counts how often it was asked to."""

    asked = 0
    takes = 0.5

    async def census(self) -> Census:
        self.asked += 1
        await trio.sleep(self.takes)
        return await super().census()


class Broken(MemoryState):
    """A state whose database is gone."""

    async def census(self) -> Census:
        raise StateUnavailable("The database is gone.")


def metrics(state: MemoryState) -> Metrics:
    sources = OwnSources(calls=CallTally(), rates=Rates(), state=state, counts=Counts(state))
    return Metrics(History(), sources)


async def test_many_scrapes_ask_the_state_once(autojump_clock: MockClock) -> None:
    state = Slow()
    figures = metrics(state)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(figures.page)
    assert state.asked == 1
    await figures.page()
    assert state.asked == 1
    await trio.sleep(9.9)
    await figures.page()
    assert state.asked == 1, "half a second is too much to be asked for each second"
    await trio.sleep(0.1)
    await figures.page()
    assert state.asked == 2


async def test_a_scrape_that_is_given_up_leaves_the_others_alone(
    autojump_clock: MockClock,
) -> None:
    figures = metrics(Slow())
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.1):
            await figures.page()
        nursery.start_soon(figures.page)
        page, _ = await figures.page()
    assert samples(page.decode())["superlink_nodes{}"] == 0


async def test_the_other_figures_are_there_without_a_state(autojump_clock: MockClock) -> None:
    stalled = Slow()
    stalled.takes = 1e6
    for state in (Broken(), stalled):
        before = trio.current_time()
        page, _ = await metrics(state).page()
        assert trio.current_time() - before <= 3
        found = samples(page.decode())
        assert found["superlink_state_available{}"] == 0
        assert found["superlink_ready{}"] == 1
        assert "superlink_nodes{}" not in found


def table(page: str) -> Iterator[str]:
    """Give the rows of docs/metrics.md for what a page says that it has."""
    for family in text_string_to_metric_families(page):
        total = "_total" if family.type == "counter" else ""
        labels = sorted({f"`{label}`" for sample in family.samples for label in sample.labels})
        of = ", ".join(label for label in labels if label != "`le`") or "–"
        yield f"| `{family.name}{total}` | {family.type} | {of} | {family.documentation} |"


def documented() -> Sequence[str]:
    """Give the rows of the table in docs/metrics.md."""
    rows = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    return [row for row in rows if re.match(r"\| `(superlink|process)_\w+` \|", row)]


async def test_the_docs_have_every_metric(link: SuperLink) -> None:
    def call() -> None:
        with pytest.raises(NotAnswered):
            Client(over_grpc(str(link.driver_address), "Driver")).send("PushTaskIns", b"")

    await trio.to_thread.run_sync(call)
    _, page = await get(link, "/metrics")
    # Only Linux tells of processes.
    linux = sys.platform == "linux"
    assert [row for row in documented() if linux or "process_" not in row] == list(table(page))
    await link.stop()


def test_the_docs_say_of_every_metric_how_those_of_workers_add_up() -> None:
    section = (ROOT / "docs" / "metrics.md").read_text().partition("### Several workers")[2]
    told = re.findall(r"`((?:superlink|process)_\w*…?)`", section.partition("A worker that")[0])
    for row in documented():
        name = row.split(" | ")[0].strip("| `")
        matching = [each for each in told if fnmatch(name, each.replace("…", "*"))]
        assert len(matching) == 1, (name, matching)


def test_the_dashboard_and_the_alerts_ask_for_what_there_is() -> None:
    there: set[str] = set()
    for row in documented():
        name, kind = row.split(" | ")[:2]
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        there |= {name.strip("| `") + suffix for suffix in suffixes}
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += (ROOT / "docs" / "metrics.md").read_text().partition("### Worth an alert")[2:]
    names = {name for each in asked for name in re.findall(r"\b(?:superlink|process)_\w+", each)}
    assert len(names) > 20
    assert names <= there
