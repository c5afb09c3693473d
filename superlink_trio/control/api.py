"""The Control API: start a run from a bundle, follow its log, stop it, list runs and nodes.

`flwr run` executes its sender's code on this machine: whoever may call this may do anything here.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import attrs
from google.protobuf.message import Message

from superlink_trio.logs.context import note
from superlink_trio.rpc import (
    Api,
    Caller,
    Duplex,
    Holds,
    Refused,
    Status,
    parse,
    unary,
    with_refusals,
)
from superlink_trio.state.messages import MessageState, NewRun, NotPermitted
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.bulk import in_thread_if_large
from superlink_trio.wire.messages import (
    FEDERATION,
    Outcome,
    RunRecord,
    iso,
    write_node,
    write_run,
)
from superlink_trio.wire.project import Project, project_in_bundle
from superlink_trio.wire.runs import Fab, read_scalars

_log = logging.getLogger(__name__)

MOST_FAB_SIZE = 10 * 1024 * 1024
"""Bytes of a bundle: what Flower's own SuperLink takes."""

_MOST_RUNS = 20

_OLDER_FEDERATION = "default"
"""What the one federation is to `flwr` of 1.24 and 1.25."""

# Flower's numbers for what is wrong, as its command line knows them.
_NOT_OFFERED, _NO_FEDERATION, _FAILED_TO_CREATE, _BAD_CONFIG = 1, 2, 14, 15
_NO_RUN, _FINISHED, _BAD_KEY, _KEY_IN_USE, _NO_NODE, _BAD_APP = 16, 18, 22, 23, 24, 33

Request = TypeVar("Request", bound=Message)


def control_api(
    state: MessageState,
    check_key: Callable[[bytes], None],
    simulation: pb.SimulationConfig | None = None,
) -> Api:
    """Make the Control API over a state.

    `check_key` raises Refused for what is no node's key. `simulation`: how runs are simulated that
    do not say otherwise; `flwr federation simulation-config` changes it. None: they are not.
    """
    holds = Holds()
    control = _Control(state=state, holds=holds, check_key=check_key, simulation=simulation)
    calls: Mapping[str, tuple[type[Message], Callable[..., Awaitable[Message]]]] = {
        "StartRun": (pb.StartRunRequest, control.start_run),
        "StopRun": (pb.StopRunRequest, control.stop_run),
        "ListRuns": (pb.ListRunsRequest, control.list_runs),
        "RegisterNode": (pb.RegisterNodeRequest, control.register_node),
        "UnregisterNode": (pb.UnregisterNodeRequest, control.unregister_node),
        "ListNodes": (pb.ListNodesRequest, control.list_nodes),
        "ListFederations": (pb.ListFederationsRequest, control.list_federations),
        "ShowFederation": (pb.ShowFederationRequest, control.show_federation),
        "ConfigureSimulationFederation": (
            pb.ConfigureSimulationFederationRequest,
            control.configure_simulation,
        ),
        "GetLoginDetails": (pb.GetLoginDetailsRequest, control.get_login_details),
    }
    return with_refusals(
        Api(
            service="flwr.proto.Control",
            unary={name: unary(kind, handle) for name, (kind, handle) in calls.items()},
            leased={},
            streaming={"StreamLogs": control.stream_logs},
            holds=holds,
        )
    )


@attrs.frozen(kw_only=True)
class _Control:
    state: MessageState
    holds: Holds
    check_key: Callable[[bytes], None]
    simulation: pb.SimulationConfig | None

    # Runs

    async def start_run(self, request: pb.StartRunRequest, _: Caller) -> pb.StartRunResponse:
        if request.app_spec:
            raise _refusal(
                _BAD_APP,
                f"{request.app_spec!r} would come from Flower's Hub, which is not reached from "
                "here: run the app from its directory.",
            )
        if request.connector_refs or request.connector_ids or request.user_prompt:
            raise _refusal(_NOT_OFFERED, "Connectors and agents are not offered here.")
        _check_federation(request.federation)
        fab = await in_thread_if_large(len(request.fab.content), _read_fab, request.fab)
        project = _read_project(fab)
        overrides = read_scalars(request.override_config)
        unknown = sorted(set(overrides) - set(project.config))
        if unknown:
            raise _refusal(
                _BAD_CONFIG,
                f"The app's [tool.flwr.app.config] has no {', '.join(unknown)}: only what is there "
                "can be overridden.",
            )
        run = await self.state.create_run(
            NewRun(
                fab=fab,
                fab_id=project.fab_id,
                fab_version=project.version,
                override_config=overrides,
                series_id=request.series_id,
                simulation=self._simulation_with(request.override_federation_config),
            )
        )
        note(run_id=run.run_id)
        _log.info("Run %d created: %s %s", run.run_id, run.fab_id, run.fab_version)
        return pb.StartRunResponse(
            run_id=run.run_id, series_id=run.series_id, federation=FEDERATION
        )

    async def stop_run(self, request: pb.StopRunRequest, _: Caller) -> pb.StopRunResponse:
        run = await self._run(request.run_id)
        if not await self.state.finish_run(run.run_id, Outcome.STOPPED, "stopped by flwr stop"):
            raise _refusal(_FINISHED, f"Run {run.run_id} is over already.")
        _log.info("Run %d is stopped", run.run_id)
        return pb.StopRunResponse(success=True)

    async def list_runs(self, request: pb.ListRunsRequest, _: Caller) -> pb.ListRunsResponse:
        if request.HasField("run_id"):
            runs = [await self._run(request.run_id)]
        else:
            limit = request.limit if request.HasField("limit") else _MOST_RUNS
            runs = list(await self.state.runs(limit, request.skip))
        return pb.ListRunsResponse(
            run_dict={run.run_id: write_run(run) for run in runs}, now=iso(self.state.now())
        )

    async def stream_logs(self, stream: Duplex, _: Caller) -> None:
        request = parse(pb.StreamLogsRequest, await stream.receive())
        run = await self._run(request.run_id)
        note(run_id=run.run_id)
        after = request.after_timestamp
        over = False
        with self.holds.open(math.inf):
            while not over:
                logged = await self.state.logs(run.run_id, after)
                if logged.text:
                    response = pb.StreamLogsResponse(
                        log_output=logged.text, latest_timestamp=logged.latest
                    )
                    await stream.send(response.SerializeToString())
                after, over = logged.latest, logged.over
                if not over:
                    await self.state.await_logs(run.run_id, after)
        if not over:
            # Whoever follows takes an orderly end for that of the run.
            raise Refused(
                Status.UNAVAILABLE,
                f"This SuperLink stops, or has too many calls to hold; run {run.run_id} is not "
                f"over: `flwr log {run.run_id}` follows its log again.",
            )

    async def _run(self, run_id: int) -> RunRecord:
        run = await self.state.run(run_id)
        if run is None:
            raise Refused(Status.NOT_FOUND, f"Run {run_id} is not known.", _NO_RUN)
        return run

    # Nodes

    async def register_node(
        self, request: pb.RegisterNodeRequest, _: Caller
    ) -> pb.RegisterNodeResponse:
        try:
            self.check_key(request.public_key)
        except Refused as refused:
            raise _refusal(_BAD_KEY, refused.message) from None
        try:
            node_id = await self.state.register_node(
                request.public_key, name=request.name, location=request.location
            )
        except NotPermitted as error:
            raise _refusal(_KEY_IN_USE, f"{error}") from None
        return pb.RegisterNodeResponse(node_id=node_id)

    async def unregister_node(
        self, request: pb.UnregisterNodeRequest, _: Caller
    ) -> pb.UnregisterNodeResponse:
        if not await self.state.unregister_node(request.node_id):
            raise Refused(Status.NOT_FOUND, f"Node {request.node_id} is not known.", _NO_NODE)
        return pb.UnregisterNodeResponse()

    async def list_nodes(self, _: pb.ListNodesRequest, __: Caller) -> pb.ListNodesResponse:
        now = self.state.now()
        nodes = [write_node(node, now) for node in await self.state.nodes()]
        return pb.ListNodesResponse(nodes_info=nodes, now=iso(now))

    # The one federation, and the one account

    async def list_federations(
        self, _: pb.ListFederationsRequest, __: Caller
    ) -> pb.ListFederationsResponse:
        return pb.ListFederationsResponse(federations=[self._federation()])

    async def show_federation(
        self, request: pb.ShowFederationRequest, _: Caller
    ) -> pb.ShowFederationResponse:
        _check_federation(request.federation_name)
        now = self.state.now()
        federation = self._federation()
        federation.nodes.extend(write_node(node, now) for node in await self.state.nodes())
        federation.runs.extend(write_run(run) for run in await self.state.runs(_MOST_RUNS))
        return pb.ShowFederationResponse(federation=federation, now=iso(now))

    def _federation(self) -> pb.Federation:
        return pb.Federation(
            name=FEDERATION, simulation=self.simulation is not None, config=self.simulation
        )

    async def configure_simulation(
        self, request: pb.ConfigureSimulationFederationRequest, _: Caller
    ) -> pb.ConfigureSimulationFederationResponse:
        _check_federation(request.federation_name)
        changed = self._simulation_with(request.config)
        if self.simulation is None or changed is None:
            raise Refused(
                Status.NOT_FOUND,
                "Runs are not simulated here: that takes a SuperLink with --simulation.",
                _NO_FEDERATION,
            )
        self.simulation.CopyFrom(changed)
        return pb.ConfigureSimulationFederationResponse(federation_name=FEDERATION)

    def _simulation_with(self, changes: pb.SimulationConfig) -> pb.SimulationConfig | None:
        """Give how a run is simulated that asks for these changes. Raises Refused."""
        if self.simulation is None:
            return None
        config = pb.SimulationConfig()
        config.CopyFrom(self.simulation)
        config.MergeFrom(changes)
        if not config.num_supernodes:
            raise _refusal(_BAD_CONFIG, "num-supernodes is 0: a simulation takes at least 1 node.")
        return config

    async def get_login_details(
        self, _: pb.GetLoginDetailsRequest, __: Caller
    ) -> pb.GetLoginDetailsResponse:
        return pb.GetLoginDetailsResponse(authn_type="noop")


def _refusal(code: int, message: str) -> Refused:
    return Refused(Status.FAILED_PRECONDITION, message, code)


def _check_federation(name: str) -> None:
    if name not in ("", _OLDER_FEDERATION, FEDERATION):
        raise Refused(
            Status.NOT_FOUND,
            f"There is one federation here, {FEDERATION}, no {name!r}.",
            _NO_FEDERATION,
        )


def _read_fab(fab: pb.Fab) -> Fab:
    if len(fab.content) > MOST_FAB_SIZE:
        raise _refusal(
            _FAILED_TO_CREATE, f"The bundle has more than {MOST_FAB_SIZE} bytes: leave data out."
        )
    return Fab(hash=hashlib.sha256(fab.content).hexdigest(), content=fab.content)


def _read_project(fab: Fab) -> Project:
    try:
        return project_in_bundle(fab.content)
    except ValueError as error:
        raise _refusal(_BAD_CONFIG, f"{error}") from None
