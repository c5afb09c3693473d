"""A normal client: one node and its driver, at work for so many seconds.

    bystander DRIVER FLEET KIND SECONDS [CA]

`KIND` is `grpc` or `rest`. Like Flower's nodes it repeats a call that fails. Reports, of each call,
when it began, how many seconds passed until it was answered, and the errors on the way there.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import grpc
from google.protobuf.message import Message

from superlink_trio.wire import superlink_pb2 as pb

_TIMEOUT = 10.0
_PATIENCE = 20.0
_PAUSE = 0.01
_PATHS = {
    "CreateNode": "create-node",
    "Ping": "ping",
    "PullTaskIns": "pull-task-ins",
    "PushTaskRes": "push-task-res",
}

Raw = Callable[[bytes], bytes]
Answer = TypeVar("Answer", bound=Message)


class Failed(Exception):
    """A call was not answered; the message says how."""


@attrs.define
class Report:
    """What became of the calls: begin, seconds, errors."""

    calls: list[tuple[float, float, list[str]]] = attrs.field(factory=list)
    unserved: list[str] = attrs.field(factory=list)

    def call(self, raw: Raw, request: Message, kind: type[Answer]) -> Answer:
        """Call until there is an answer. Raises Failed when patience has ended."""
        begun, errors = time.monotonic(), list[str]()
        while True:
            try:
                answer = kind.FromString(raw(request.SerializeToString()))
            except Failed as error:
                errors.append(str(error))
                if time.monotonic() - begun > _PATIENCE:
                    self.unserved.append(f"{type(request).__name__}: {error}")
                    raise
                time.sleep(_PAUSE)
            else:
                self.calls.append((begun, time.monotonic() - begun, errors))
                return answer


def over_grpc(address: str, service: str, certificate: bytes | None) -> Callable[[str], Raw]:
    """Call over one gRPC channel."""
    channel = (
        grpc.insecure_channel(address)
        if certificate is None
        else grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate))
    )

    def call(name: str) -> Raw:
        multicallable: Any = channel.unary_unary(f"/flwr.proto.{service}/{name}", None, None)

        def raw(request: bytes) -> bytes:
            try:
                return bytes(multicallable(request, timeout=_TIMEOUT))
            except grpc.RpcError as error:
                raise Failed(error.code().name) from None

        return raw

    return call


def over_rest(address: str, certificate: bytes | None) -> Callable[[str], Raw]:
    """Call over a connection for each call, as Flower's REST clients do."""
    tls = None if certificate is None else ssl.create_default_context(cadata=certificate.decode())

    def connect() -> http.client.HTTPConnection:
        if tls is None:
            return http.client.HTTPConnection(address, timeout=_TIMEOUT)
        return http.client.HTTPSConnection(address, timeout=_TIMEOUT, context=tls)

    def call(name: str) -> Raw:
        headers = {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}

        def raw(request: bytes) -> bytes:
            connection = connect()
            try:
                connection.request("POST", f"/api/v0/fleet/{_PATHS[name]}", request, headers)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise Failed(type(error).__name__) from None
            finally:
                connection.close()
            if response.status != http.client.OK:
                raise Failed(str(response.status))
            return body

        return raw

    return call


def work(
    report: Report, driver: Callable[[str], Raw], fleet: Callable[[str], Raw], until: float
) -> None:
    """Let a task make its way, again and again."""
    run_id = report.call(driver("CreateRun"), pb.CreateRunRequest(), pb.CreateRunResponse).run_id
    create = pb.CreateNodeRequest(ping_interval=3600)
    node = report.call(fleet("CreateNode"), create, pb.CreateNodeResponse).node
    while time.monotonic() < until:
        report.call(fleet("Ping"), pb.PingRequest(node=node, ping_interval=3600), pb.PingResponse)
        pushed = report.call(
            driver("PushTaskIns"),
            pb.PushTaskInsRequest(task_ins_list=[question(run_id, node)]),
            pb.PushTaskInsResponse,
        )
        pulled = report.call(
            fleet("PullTaskIns"), pb.PullTaskInsRequest(node=node), pb.PullTaskInsResponse
        )
        for asked in pulled.task_ins_list:
            report.call(
                fleet("PushTaskRes"),
                pb.PushTaskResRequest(task_res_list=[answer_to(asked)]),
                pb.PushTaskResResponse,
            )
        results = report.call(
            driver("PullTaskRes"),
            pb.PullTaskResRequest(task_ids=pushed.task_ids),
            pb.PullTaskResResponse,
        )
        if [result.task.recordset for result in results.task_res_list] != [b"result"]:
            report.unserved.append("a task's result did not arrive")
        time.sleep(_PAUSE)


def question(run_id: int, node: pb.Node) -> pb.TaskIns:
    task = pb.Task(
        producer=pb.Node(anonymous=True),
        consumer=node,
        created_at=time.time(),
        ttl=3600,
        task_type="train",
        recordset=b"model",
    )
    return pb.TaskIns(group_id="1", run_id=run_id, task=task)


def answer_to(asked: pb.TaskIns) -> pb.TaskRes:
    task = pb.Task(
        producer=asked.task.consumer,
        consumer=asked.task.producer,
        created_at=time.time(),
        ttl=3600,
        ancestry=[asked.task_id],
        task_type=asked.task.task_type,
        recordset=b"result",
    )
    return pb.TaskRes(group_id=asked.group_id, run_id=asked.run_id, task=task)


def main(
    driver_address: str, fleet_address: str, kind: str, seconds: str, authority: str | None = None
) -> None:
    until = time.monotonic() + float(seconds)
    certificate = None if authority is None else Path(authority).read_bytes()
    driver = over_grpc(driver_address, "Driver", certificate)
    fleet = (
        over_rest(fleet_address, certificate)
        if kind == "rest"
        else over_grpc(fleet_address, "Fleet", certificate)
    )
    report = Report()
    try:
        work(report, driver, fleet, until)
    except Failed:
        print("not served any more", report.unserved[-1], file=sys.stderr)
    print(json.dumps(attrs.asdict(report)))


if __name__ == "__main__":
    main(*sys.argv[1:])
