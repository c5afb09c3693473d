"""A normal client: one node and its driver, at work for so many seconds.

    bystander DRIVER FLEET KIND SECONDS [CA]

`KIND` is `grpc` or `rest`. Like Flower's nodes it repeats a call that fails. Reports, of each call,
when it began, how many seconds passed until it was answered, and the errors on the way there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import attrs
from peering.client import Client, NotAnswered, fleet, over_grpc
from peering.messages import task_ins, task_res

_TIMEOUT = 10.0
_PATIENCE = 20.0
_PAUSE = 0.01

P = ParamSpec("P")
Answer = TypeVar("Answer")


@attrs.define
class Report:
    """What became of the calls: begin, seconds, errors."""

    calls: list[tuple[float, float, list[str]]] = attrs.field(factory=list)
    unserved: list[str] = attrs.field(factory=list)

    def call(self, once: Callable[P, Answer], *arguments: P.args, **named: P.kwargs) -> Answer:
        """Call until there is an answer. Raises NotAnswered when patience has ended."""
        begun, errors = time.monotonic(), list[str]()
        while True:
            try:
                answer = once(*arguments, **named)
            except NotAnswered as error:
                errors.append(error.code)
                if time.monotonic() - begun > _PATIENCE:
                    self.unserved.append(f"{once.__name__}: {error.code}")
                    raise
                time.sleep(_PAUSE)
            else:
                self.calls.append((begun, time.monotonic() - begun, errors))
                return answer


def work(report: Report, driver: Client, node: Client, until: float) -> None:
    """Let a task make its way, again and again."""
    run_id = report.call(driver.create_run)
    me = report.call(node.create_node)
    while time.monotonic() < until:
        report.call(node.ping, me)
        task_ids = report.call(driver.push_tasks, [task_ins(run_id, me)])
        for asked in report.call(node.pull_tasks, me):
            report.call(node.push_results, [task_res(asked, b"result")])
        results = report.call(driver.pull_results, task_ids)
        if [result.task.recordset for result in results] != [b"result"]:
            report.unserved.append("a task's result did not arrive")
        time.sleep(_PAUSE)


def main(driver: str, address: str, kind: str, seconds: str, authority: str | None = None) -> None:
    until = time.monotonic() + float(seconds)
    ca = None if authority is None else Path(authority).read_bytes()
    drives = Client(over_grpc(driver, "Driver", ca, timeout=_TIMEOUT))
    report = Report()
    try:
        work(report, drives, fleet(address, ca, rest=kind == "rest", timeout=_TIMEOUT), until)
    except NotAnswered:
        print("not served any more", report.unserved[-1], file=sys.stderr)
    print(json.dumps(attrs.asdict(report)))


if __name__ == "__main__":
    main(*sys.argv[1:])
