"""The overview of a SuperLink as a terminal shows it.

What clients and drivers named is put in as text without control characters: it must not drive the
terminal, nor look like markup.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from superlink_trio.cli.columns import Columns
from superlink_trio.logs.wording import counted, harmless, lasting, sized

_MOST_NODES, _MOST_RUNS, _MOST_ROUNDS, _MOST_EVENTS = 20, 12, 12, 5
_MOST_MISSING = 2  # nodes that a round waits for
_MOST_LINES = 5  # of what a run said when it failed

_STYLES = {"ready": "green", "failed": "bold red", "stopped": "dim", "online": "green"}

_Document = Mapping[str, Any]


def picture(overview: _Document) -> RenderableType:
    """Draw the overview: its first line says whether all is well."""
    now = overview["time"]
    return Group(
        _headline(overview),
        "",
        _parts(overview, now),
        "",
        *_nodes(overview["nodes"], now),
        *_flower(overview["flower"], now),
        "",
        *_rounds(overview["runs"], now),
        "",
        *_figures(overview, now),
        *_failures(overview["events"]),
    )


def _headline(overview: _Document) -> Text:
    faults = [harmless(fault) for fault in overview["faults"]]
    line = (
        Text(f"▲ {'; '.join(faults)}", style="bold red")
        if faults
        else Text("✓ All is well", style="bold green")
    )
    age = lasting(overview["time"] - overview["began"])
    about = f"   version {overview['version']}, process {overview['pid']}, up {age}"
    return line.append(about, style="dim")


def _parts(overview: _Document, now: float) -> Columns:
    addresses = overview["addresses"]
    return _table(
        ("Part", "State", "For", "Restarts", "Listens on"),
        (
            (
                part["path"],
                part["state"],
                lasting(now - part["since"]),
                str(part["restarts"]),
                addresses.get(part["path"], ""),
            )
            for part in overview["parts"]
        ),
    )


def _nodes(nodes: _Document, now: float) -> Iterator[RenderableType]:
    if nodes["known"] is None:
        yield _heading("Nodes: not known")
        return
    yield _heading(f"Nodes: {nodes['online']} online of {nodes['known']} known")
    yield from _most(
        nodes["shown"][:_MOST_NODES],
        nodes["known"],
        ("Node", "State", "Heard of", "Task"),
        lambda node: (
            node["node_id"],
            "online" if node["online"] else "offline",
            f"{lasting(now - node['heard'])} ago",
            _task(node["task"], now),
        ),
    )


def _most(
    shown: Sequence[_Document],
    known: int,
    headings: Sequence[str],
    row: Callable[[_Document], Sequence[str]],
) -> Iterator[RenderableType]:
    """Draw a table of nodes, and say how many more there are."""
    if shown:
        yield _table(headings, map(row, shown))
        if known > len(shown):
            yield Text(f"and {known - len(shown)} more", style="dim")


def _flower(flower: _Document | None, now: float) -> Iterator[RenderableType]:
    """Tell of Flower 1.23 and later, where it is served."""
    if flower is None:
        return
    yield ""
    yield _heading(f"SuperNodes: {flower['online']} online of {flower['known']} known")
    yield from _most(
        flower["shown_nodes"][:_MOST_NODES],
        flower["known"],
        ("Node", "Name", "State", "Heard of", "Message"),
        lambda node: (
            node["node_id"],
            node["name"],
            node["state"],
            "" if node["heard"] is None else f"{lasting(now - node['heard'])} ago",
            _messages(node, now),
        ),
    )
    yield ""
    counts = ", ".join(f"{count} {status}" for status, count in flower["runs"].items())
    yield _heading(f"Runs of apps: {counts}")
    runs = flower["shown_runs"][:_MOST_RUNS]
    if runs:
        yield _table(
            ("Run", "App", "Status", "For", "Took", "Round", "Messages"),
            [_app_run(run, now) for run in runs],
        )
    for run in runs:
        if run["round"] and run["ended"] is None:
            yield from _missing(run["run_id"], run["round"])
        if run["status"] == "failed":
            yield Text(f"Run {run['run_id']} failed:", style="bold red")
            for line in run["reason"].splitlines()[-_MOST_LINES:]:
                yield Text(f"  {harmless(line)}")


def _messages(node: _Document, now: float) -> str:
    more = node["messages"] - 1
    return _task(node["message"], now) + (f" and {more} more" if more > 0 else "")


def _app_run(run: _Document, now: float) -> Sequence[str]:
    latest = run["round"]
    return (
        run["run_id"],
        f"{run['fab_id']} {run['fab_version']}".strip(),
        run["status"],
        lasting(now - run["since"]),
        lasting((run["ended"] or now) - run["began"]) if run["began"] else "",
        f"{latest['round']} {latest['kind']}".strip() if latest else "",
        f"{latest['waiting']} waiting, {latest['under_way']} under way, "
        f"{latest['answered']} of {latest['asked']} answered"
        if latest
        else "",
    )


def _task(task: _Document | None, now: float) -> str:
    if task is None:
        return ""
    where = f"run {task['run_id']}" + (f", round {task['round']}" if task["round"] else "")
    return f"{task['kind']} of {where}, for {lasting(now - task['since'])}"


def _rounds(runs: Iterable[_Document], now: float) -> Iterator[RenderableType]:
    latest = sorted(
        ((run["run_id"], each) for run in runs for each in run["rounds"]),
        key=lambda pair: pair[1]["began"],
        reverse=True,
    )[:_MOST_ROUNDS]
    if not latest:
        yield _heading("Rounds: none since this process began")
        return
    yield _heading("Rounds, the latest first")
    yield _table(
        ("Run", "Round", "Kind", "Took", "Answered", "Errors"),
        [
            (
                run_id,
                each["round"],
                each["kind"],
                lasting((each["ended"] or now) - each["began"])
                + ("" if each["ended"] else " so far"),
                f"{each['answered']} of {each['asked']}",
                str(each["errors"]),
            )
            for run_id, each in latest
        ],
    )
    for run_id, each in latest:
        if each["ended"] is None:
            yield from _missing(run_id, each)


def _missing(run_id: str, each: _Document) -> Iterator[Text]:
    """Say who a round waits for, in a line of its own: no column has room for that many ids."""
    if not each["missing"]:
        return
    named = [missing["node_id"] for missing in each["waiting_for"][:_MOST_MISSING]]
    more = each["missing"] - len(named)
    nodes = ", ".join(named) + (f" and {more} more" if more > 0 else "")
    where = f", round {harmless(each['round'])}," if each["round"] else ""
    yield Text(f"Run {run_id}{where} waits for {nodes}")


def _figures(overview: _Document, now: float) -> Iterator[RenderableType]:
    tasks, calls = overview["tasks"], overview["calls"]
    if tasks is not None:
        states = ", ".join(
            f"{each['count']} {name}"
            + (f" (oldest {lasting(now - each['since'])})" if each["count"] else "")
            for name, each in tasks["by_state"].items()
        )
        yield Text("Tasks: ", style="bold").append(states, style="not bold")
        stored = f"{sized(tasks['stored_bytes'])}, {sized(tasks['shared_bytes'])} saved by sharing"
        yield Text("Stored: ", style="bold").append(stored, style="not bold")
    latency = (
        ""
        if calls["median"] is None
        else f"; median {calls['median']:.2g} ms, 99 of 100 within {calls['p99']:.2g} ms"
    )
    rates = f"{calls['calls']}/s, {calls['faults']}/s refused or failed; "
    rates += f"{calls['under_way']} under way{latency}"
    yield Text("Calls: ", style="bold").append(rates, style="not bold")


def _failures(events: Iterable[_Document]) -> Iterator[RenderableType]:
    failures = [event for event in events if event["kind"] == "failed"][-_MOST_EVENTS:]
    if not failures:
        return
    yield ""
    yield _heading(f"The last {counted(len(failures), 'failure')}")
    yield _table(
        ("Time", "Part", "Why"),
        (
            (
                time.strftime("%H:%M:%S", time.localtime(event["time"])),
                event["path"],
                event["words"],
            )
            for event in failures
        ),
    )


def _heading(text: str) -> Text:
    return Text(text, style="bold")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Columns:
    return Columns(headings, rows, _STYLES)
