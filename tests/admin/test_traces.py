"""Calls as spans: of an API, of a program, and what happens without a collector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from peering.client import Client, over_grpc
from trio.testing import MockClock

from superlink_trio.admin.traces import Traces, wanted
from superlink_trio.config import Address
from superlink_trio.logs.context import current, note
from superlink_trio.rpc import Api, Caller, Holds, Refused, Status, observed
from superlink_trio.supervision import Control

ROOT = Path(__file__).resolve().parent.parent.parent
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = Caller("[::1]:4711", {"traceparent": f"00-{TRACE}-{PARENT}-01"})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_SERVICE_NAME": "me"}, False),
    ],
)
def test_only_the_environment_asks_for_traces(
    environment: Mapping[str, str], expected: bool
) -> None:
    assert wanted(environment) is expected


class Spans:
    """A provider that remembers its spans, and an API whose calls become such."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.logged: list[Mapping[str, object]] = []

        async def get_run(raw: bytes, caller: Caller) -> bytes:
            note(run_id=7)
            self.logged.append(current())
            if raw == b"broken":
                raise RuntimeError("broken")
            if raw == b"unknown":
                raise Refused(Status.NOT_FOUND, "unknown")
            return b"run"

        @asynccontextmanager
        async def pull(raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
            yield b"task"

        bare = Api(
            service="flwr.proto.Fleet",
            unary={"GetRun": get_run},
            leased={"PullTaskIns": pull},
            holds=Holds(),
        )
        traces = Traces(self.provider, Control(), 5)
        observer = traces.observer("grpc", lambda: Address("127.0.0.1", 9092))
        self.api = observed(bare, [observer])

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


async def test_a_call_is_a_span_of_its_callers_trace() -> None:
    spans = Spans()
    await spans.api.unary["GetRun"](b"", CALLER)
    [span] = spans.ended
    assert (span.name, span.kind) == ("flwr.proto.Fleet/GetRun", SpanKind.SERVER)
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    attributes = dict(span.attributes or {})
    call_id = attributes.pop("superlink.call_id")
    assert attributes == {
        "rpc.system": "grpc",
        "rpc.service": "flwr.proto.Fleet",
        "rpc.method": "GetRun",
        "rpc.grpc.status_code": 0,
        "server.address": "127.0.0.1",
        "server.port": 9092,
        "client.address": "::1",
        "client.port": 4711,
        "superlink.run_id": "7",
    }
    assert span.status.status_code is StatusCode.UNSET
    [fields] = spans.logged
    assert (fields["call_id"], fields["trace_id"]) == (call_id, TRACE)


@pytest.mark.parametrize(
    ("raw", "outcome", "code", "status"),
    [
        (b"broken", "INTERNAL", 13, StatusCode.ERROR),
        (b"unknown", "NOT_FOUND", 5, StatusCode.UNSET),
    ],
)
async def test_only_what_the_server_fails_at_is_an_error(
    raw: bytes, outcome: str, code: int, status: StatusCode
) -> None:
    spans = Spans()
    with pytest.raises((RuntimeError, Refused)):
        await spans.api.unary["GetRun"](raw, CALLER)
    [span] = spans.ended
    assert span.status.status_code is status
    attributes = span.attributes or {}
    assert (attributes["error.type"], attributes["rpc.grpc.status_code"]) == (outcome, code)


async def test_a_lease_is_a_span_until_it_is_settled() -> None:
    spans = Spans()
    async with spans.api.leased["PullTaskIns"](b"", Caller()):
        assert not spans.ended
    [span] = spans.ended
    assert span.parent is None


class Stuck(TracerProvider):
    """A provider whose collector does not answer."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.asked = trio.Event()
        self.release = trio.Event()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        trio.from_thread.run_sync(self.asked.set)
        trio.from_thread.run(self.release.wait, trio_token=None)
        return True


async def test_a_flush_has_what_is_left_of_the_grace(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    provider, control, stopping = Stuck(), Control(), trio.Event()
    traces = Traces(provider, control, grace=5)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await traces.serve(stopping=stopping, task_status=task_status)

        await nursery.start(serve)
        control.stop()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3)  # which calls took to end
        stopping.set()
        await provider.asked.wait()
        mock_clock.jump(2.5)
    provider.release.set()
    assert caplog.messages == ["The last spans could not be handed over in 2.0 s"]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    programs: list[subprocess.Popen[str]] = []

    def begin(**environment: str) -> subprocess.Popen[str]:
        addresses = ("--driver-api-address", "--grpc-rere-fleet-api-address")
        command = [sys.executable, "-m", "superlink_trio", "--log-format", "json", "--grace", "2"]
        for option in addresses:
            command += [option, "127.0.0.1:0"]
        programs.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )
        )
        return programs[-1]

    yield begin
    for program in programs:
        program.kill()
        program.communicate()


def ready(program: subprocess.Popen[str]) -> Any:
    assert program.stderr is not None
    return next(entry for entry in map(json.loads, program.stderr) if "driver_address" in entry)


def test_a_program_hands_over_its_last_spans(start: Start) -> None:
    program = start(OTEL_TRACES_EXPORTER="console")
    Client(over_grpc(ready(program)["driver_address"], "Driver")).create_run()
    program.send_signal(signal.SIGTERM)
    out, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    span = json.loads(out)
    assert span["name"] == "flwr.proto.Driver/CreateRun"
    assert span["resource"]["attributes"]["service.name"] == "superlink-trio"


DEAF = """
import time
from opentelemetry.sdk.trace.export import SpanExporter


class Deaf(SpanExporter):
    def export(self, spans):
        time.sleep(60)
"""


def test_a_program_ends_in_time_without_its_collector(start: Start, tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(DEAF)
    about = tmp_path / "deaf-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: deaf\nVersion: 1\n")
    exporters = "[opentelemetry_traces_exporter]\ndeaf = deaf:Deaf\n"
    (about / "entry_points.txt").write_text(exporters)
    program = start(OTEL_TRACES_EXPORTER="deaf", PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    Client(over_grpc(ready(program)["driver_address"], "Driver")).create_run()
    program.send_signal(signal.SIGTERM)
    _, err = program.communicate(timeout=20)
    assert program.returncode == 0
    assert "could not be handed over" in err


def test_what_opentelemetry_does_not_take_is_one_line(start: Start) -> None:
    program = start(OTEL_TRACES_EXPORTER="pigeon")
    _, err = program.communicate(timeout=30)
    assert program.returncode == 1
    last = json.loads(err.splitlines()[-1])
    assert "does not take" in last["event"]
    assert "pigeon" in last["event"]
