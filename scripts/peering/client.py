"""A raw Flower client: one call for each method, over gRPC or REST; it repeats nothing."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache

import attrs
import grpc

from peering.messages import DRIVER
from superlink_trio.wire import superlink_pb2 as pb

Send = Callable[[str, bytes], bytes]
"""Make the call of this name with a serialised request. Raises NotAnswered."""

REST = "/api/v0/fleet"
"""Where the Fleet API is over HTTP."""

# No node is to be offline for as long as anything here takes.
_PING_INTERVAL = 3600.0
_MEDIA = {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}
_NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class NotAnswered(Exception):
    """A call had no good answer; tells the gRPC or HTTP status, or what broke the connection."""

    def __init__(self, code: str, details: str = "") -> None:
        super().__init__(code, details)
        self.code, self.details = code, details


def over_grpc(
    address: str,
    service: str,
    ca: bytes | None = None,
    *,
    timeout: float = 120.0,
    alone: bool = False,
) -> Send:
    """Call one service over a gRPC channel of its own, which ends with the process.

    Channels to one address share a connection, but for those that are `alone`.
    """
    options = [*_NO_LIMIT, ("grpc.use_local_subchannel_pool", int(alone))]
    if ca is None:
        channel = grpc.insecure_channel(address, options)
    else:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options)

    @cache
    def method(name: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        return channel.unary_unary(f"/flwr.proto.{service}/{name}", None, None)

    def send(name: str, request: bytes) -> bytes:
        try:
            return method(name)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise NotAnswered(error.code().name, error.details() or "") from None

    return send


def over_http(
    address: str,
    folder: str,
    headers: Callable[[], Mapping[str, str]] = dict,
    *,
    ca: bytes | None = None,
    timeout: float = 30.0,
) -> Send:
    """Call what is below a path over a connection for each call, as Flower's clients do.

    `headers` gives what a call has besides.
    """
    tls = None if ca is None else ssl.create_default_context(cadata=ca.decode())

    def send(name: str, request: bytes) -> bytes:
        connection = (
            http.client.HTTPConnection(address, timeout=timeout)
            if tls is None
            else http.client.HTTPSConnection(address, timeout=timeout, context=tls)
        )
        try:
            return post(connection, folder, name, request, headers())
        finally:
            connection.close()

    return send


def over_one_connection(
    address: str, folder: str, headers: Callable[[], Mapping[str, str]], *, timeout: float = 30.0
) -> Send:
    """Call what is below a path over one connection, with its cookies, as nodes of 1.40 on do."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    cookies: dict[str, str] = {}

    def send(name: str, request: bytes) -> bytes:
        return post(connection, folder, name, request, {**headers(), **cookies}, cookies)

    return send


def over_rest(address: str, ca: bytes | None = None, *, timeout: float = 30.0) -> Send:
    """Call the Fleet API of Flower 1.8 to 1.11 over HTTP."""
    return over_http(address, REST, ca=ca, timeout=timeout)


def post(
    connection: http.client.HTTPConnection,
    folder: str,
    name: str,
    request: bytes,
    headers: Mapping[str, str] | None = None,
    cookies: dict[str, str] | None = None,
) -> bytes:
    """Make one call over this connection; note in `cookies` what is set. Raises NotAnswered."""
    path = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
    try:
        connection.request("POST", f"{folder}/{path}", request, {**_MEDIA, **(headers or {})})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotAnswered(type(error).__name__) from None
    if response.status != http.client.OK:
        raise NotAnswered(str(response.status), body.decode(errors="replace"))
    if cookies is not None and (cookie := response.getheader("set-cookie")):
        cookies["cookie"] = cookie.partition(";")[0]
    return body


def fleet(address: str, ca: bytes | None = None, *, rest: bool, timeout: float) -> Client:
    """Give a client of the Fleet API, whichever transport it has."""
    if rest:
        return Client(over_rest(address, ca, timeout=timeout))
    return Client(over_grpc(address, "Fleet", ca, timeout=timeout))


@attrs.frozen
class Client:
    """The calls of the Driver API and of the Fleet API. Each raises NotAnswered."""

    send: Send

    def create_run(self) -> int:
        raw = self.send("CreateRun", b"")
        return pb.CreateRunResponse.FromString(raw).run_id

    def get_run(self, run_id: int) -> pb.Run:
        raw = self.send("GetRun", pb.GetRunRequest(run_id=run_id).SerializeToString())
        return pb.GetRunResponse.FromString(raw).run

    def nodes(self, run_id: int) -> Collection[pb.Node]:
        raw = self.send("GetNodes", pb.GetNodesRequest(run_id=run_id).SerializeToString())
        return pb.GetNodesResponse.FromString(raw).nodes

    def push_tasks(self, tasks: Iterable[pb.TaskIns]) -> list[str]:
        """Give the tasks' ids, in their order."""
        request = pb.PushTaskInsRequest(task_ins_list=tasks)
        raw = self.send("PushTaskIns", request.SerializeToString())
        return list(pb.PushTaskInsResponse.FromString(raw).task_ids)

    def pull_results(self, task_ids: Iterable[str]) -> Collection[pb.TaskRes]:
        request = pb.PullTaskResRequest(node=DRIVER, task_ids=task_ids)
        raw = self.send("PullTaskRes", request.SerializeToString())
        return pb.PullTaskResResponse.FromString(raw).task_res_list

    def create_node(self, ping_interval: float = _PING_INTERVAL) -> pb.Node:
        """`ping_interval`: seconds for which it is online."""
        request = pb.CreateNodeRequest(ping_interval=ping_interval)
        raw = self.send("CreateNode", request.SerializeToString())
        return pb.CreateNodeResponse.FromString(raw).node

    def delete_node(self, node: pb.Node) -> None:
        self.send("DeleteNode", pb.DeleteNodeRequest(node=node).SerializeToString())

    def ping(self, node: pb.Node) -> bool:
        """Renew a node; say whether it is known."""
        request = pb.PingRequest(node=node, ping_interval=_PING_INTERVAL)
        raw = self.send("Ping", request.SerializeToString())
        return pb.PingResponse.FromString(raw).success

    def pull_tasks(self, node: pb.Node) -> Collection[pb.TaskIns]:
        raw = self.send("PullTaskIns", pb.PullTaskInsRequest(node=node).SerializeToString())
        return pb.PullTaskInsResponse.FromString(raw).task_ins_list

    def push_results(self, results: Iterable[pb.TaskRes]) -> list[str]:
        """Give the results' ids; `None` stands for one that was not taken."""
        request = pb.PushTaskResRequest(task_res_list=results)
        raw = self.send("PushTaskRes", request.SerializeToString())
        return list(pb.PushTaskResResponse.FromString(raw).results)
