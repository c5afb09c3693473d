"""Calls as spans of OpenTelemetry, where its own environment variables ask for them.

Nothing of OpenTelemetry is imported where they do not.

Sources: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/semconv/rpc/
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs
import trio

from superlink_trio.config import Address, CannotStart
from superlink_trio.rpc import Call, Status
from superlink_trio.supervision import Control

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

# Even after calls have used up the grace, a collector that is well takes no longer, in seconds.
_LEAST = 0.1

_CODES = {"OK": 0, "CANCELLED": 1, **{status.name: status.value for status in Status}}

# What of these is the server's fault; the others are the caller's.
_FAULTS = frozenset({"DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"})


@runtime_checkable
class _Exporting(Protocol):
    """What providers of OpenTelemetry's SDK can do."""

    def force_flush(self, timeout_millis: int = ...) -> bool: ...
    def shutdown(self) -> None: ...


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether the environment asks for traces."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter.strip() == "none":
        return False
    return bool(exporter) or any(environ.get(name) for name in _ENDPOINTS)


def configured(
    control: Control, grace: float, environ: MutableMapping[str, str] = os.environ
) -> Traces | None:
    """Configure OpenTelemetry by its standard entry point, unless the program has done so.

    `control` stops the SuperLink, within `grace` seconds. None, and a line in the log, where
    OpenTelemetry is not installed. Raises CannotStart for values that it does not take. Blocks.
    """
    found = tuple(entry_points(group="opentelemetry_configurator"))
    if find_spec("opentelemetry") is None or not found:
        _log.warning(
            "Traces are asked for by the environment (OTEL_…), and OpenTelemetry is not installed:"
            " %s -m pip install opentelemetry-distro opentelemetry-exporter-otlp-proto-http",
            sys.executable,
        )
        return None
    from opentelemetry import trace

    theirs = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    if not theirs:
        # The specification's own defaults, which the SDK leaves to whoever configures it.
        environ.setdefault("OTEL_TRACES_EXPORTER", "otlp")
        environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        environ.setdefault("OTEL_SERVICE_NAME", "superlink-trio")
        try:
            found[0].load()().configure()
        except (RuntimeError, ValueError) as error:
            raise CannotStart(f"OpenTelemetry does not take what OTEL_… say: {error}") from error
    return Traces(trace.get_tracer_provider(), control, grace, configured_here=not theirs)


@attrs.define(eq=False)
class Traces:
    """The spans of one SuperLink's calls."""

    provider: TracerProvider
    control: Control
    grace: float
    """Seconds that a stop may take."""
    configured_here: bool = False
    """False: by the program around."""

    def observer(self, system: str, address: Callable[[], Address | None]) -> CallSpans:
        """Make what watches the calls of one API; `system` names what carries them."""
        return CallSpans(self.provider, system, address)

    async def serve(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Hand over, when `stopping` is set, what was not yet, in what is left of the grace."""
        began = None

        async def note_the_stop() -> None:
            nonlocal began
            await self.control.stopping.wait()
            began = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note_the_stop)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()
        spent = 0.0 if began is None else trio.current_time() - began
        await self._flush(max(_LEAST, self.grace - spent))

    async def _flush(self, seconds: float) -> None:
        provider, flushed = self.provider, False
        if not isinstance(provider, _Exporting):
            return
        try:
            with trio.move_on_after(seconds):
                # It minds no timeout of its own, nor a cancellation.
                await trio.to_thread.run_sync(provider.force_flush, abandon_on_cancel=True)
                flushed = True
        finally:
            if not flushed:
                _log.warning("The last spans could not be handed over in %.1f s", seconds)
                if self.configured_here:
                    # It would try again for many seconds when Python ends.
                    atexit.unregister(provider.shutdown)


class CallSpans:
    """Makes a span of every call, as a `CallObserver`.

    It is the child of the caller's, where the call's metadata name one. The log lines of a call
    whose span is recorded have its `trace_id`.
    """

    def __init__(
        self, provider: TracerProvider, system: str, address: Callable[[], Address | None]
    ) -> None:
        from opentelemetry import propagate, trace

        self._extract = propagate.extract
        self._kind = trace.SpanKind.SERVER
        self._fault = trace.StatusCode.ERROR
        self._tracer = provider.get_tracer("superlink_trio")
        self._system = system
        self._address = address
        self._spans: dict[Call, Span] = {}

    def begun(self, call: Call) -> None:
        """See `CallObserver`."""
        attributes: dict[str, str | int] = {
            "rpc.system": self._system,
            "rpc.service": call.service,
            "rpc.method": call.method,
        }
        if (address := self._address()) is not None:
            attributes |= {"server.address": address.host, "server.port": address.port}
        host, _, port = call.caller.connection.rpartition(":")
        if port.isdigit():
            attributes |= {"client.address": host.strip("[]"), "client.port": int(port)}
        span = self._spans[call] = self._tracer.start_span(
            f"{call.service}/{call.method}",
            context=self._extract(call.caller.metadata),
            kind=self._kind,
            attributes=attributes,
        )
        if span.is_recording():
            call.about["trace_id"] = f"{span.get_span_context().trace_id:032x}"

    def over(self, call: Call) -> None:
        """See `CallObserver`."""
        span = self._spans.pop(call)
        if span.is_recording():
            for name, value in call.about.items():
                if name != "trace_id":
                    span.set_attribute(f"superlink.{name}", str(value))
            if self._system == "grpc":
                span.set_attribute("rpc.grpc.status_code", _CODES[call.outcome])
            if call.outcome != "OK":
                span.set_attribute("error.type", call.outcome)
            if call.outcome in _FAULTS:
                span.set_status(self._fault, call.reason)
        span.end()
