"""A task of Flower 1.8 to 1.11, there and back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import attrs

from superlink_trio.cli.probing.steps import Failed, Steps
from superlink_trio.transport.client import Send
from superlink_trio.wire import superlink_pb2 as pb

_DRIVER = pb.Node(node_id=0, anonymous=True)
_KIND, _CONTENT = "probe", b"a task of superlink-trio probe"

_ELSEWHERE = "That port serves something else: are --driver and --fleet mixed up?"
_NO_KEY = (
    "Nodes have to have a key there, which a probe has not: `superlink-trio status` needs none."
)
ADVICE: Mapping[str, str] = {
    "": "Is that port the Fleet API over REST, and is it http or https?",
    "UNAVAILABLE": "Does a SuperLink listen there? Where it speaks TLS give --root-certificates, "
    "where it wants a driver's certificate --client-certificate and --client-key.",
    "DEADLINE_EXCEEDED": "It took too long: look at `superlink-trio status`, or give it more "
    "--timeout.",
    "UNIMPLEMENTED": _ELSEWHERE,
    "UNAUTHENTICATED": _NO_KEY,
    "401": _NO_KEY,
    "404": _ELSEWHERE,
    "405": _ELSEWHERE,
}


@attrs.frozen(kw_only=True)
class TaskProbe:
    """The way of one task."""

    driver: Send
    fleet: Send
    steps: Steps

    def run(self) -> int:
        """Go all the way; give the run's id. Raises Failed."""
        run_id = self.steps.ask(
            *("open a run", self.driver, "CreateRun"), pb.CreateRunRequest(), pb.CreateRunResponse
        ).run_id
        # It never pings: from its pull on it is online, and from nothing else.
        node = self.steps.ask(
            *("register a node", self.fleet, "CreateNode"),
            pb.CreateNodeRequest(ping_interval=0.0),
            pb.CreateNodeResponse,
        ).node
        try:
            self._take_a_task(run_id, node)
        except BaseException:
            with suppress(Failed):  # what failed first is told
                self._sign_off(node)
            raise
        self._sign_off(node)
        return run_id

    def _sign_off(self, node: pb.Node) -> None:
        self.steps.may_sign_off()
        self.steps.ask(
            *("sign the node off", self.fleet, "DeleteNode"),
            pb.DeleteNodeRequest(node=node),
            pb.DeleteNodeResponse,
        )

    def _take_a_task(self, run_id: int, node: pb.Node) -> None:
        [task_id] = self.steps.ask(
            *("push a task", self.driver, "PushTaskIns"),
            pb.PushTaskInsRequest(task_ins_list=[_task_ins(run_id, node)]),
            pb.PushTaskInsResponse,
        ).task_ids
        pulled = self.steps.ask(
            *("pull it as the node", self.fleet, "PullTaskIns"),
            pb.PullTaskInsRequest(node=node),
            pb.PullTaskInsResponse,
        ).task_ins_list
        if [task.task_id for task in pulled] != [task_id]:
            raise Failed(
                "pull it as the node: the task did not come. Do --driver and --fleet belong to one "
                "SuperLink, or to two over one database?"
            )
        self.steps.ask(
            *("push its answer", self.fleet, "PushTaskRes"),
            pb.PushTaskResRequest(task_res_list=[_task_res(pulled[0])]),
            pb.PushTaskResResponse,
        )
        answers = self.steps.ask(
            *("pull the answer", self.driver, "PullTaskRes"),
            pb.PullTaskResRequest(node=_DRIVER, task_ids=[task_id]),
            pb.PullTaskResResponse,
        ).task_res_list
        if [answer.task.recordset for answer in answers] != [_CONTENT]:
            raise Failed("pull the answer: it is not what the node has answered")


def _task_ins(run_id: int, node: pb.Node) -> pb.TaskIns:
    task = _task(_DRIVER, node, ())
    return pb.TaskIns(group_id=_KIND, run_id=run_id, task=task)


def _task_res(asked: pb.TaskIns) -> pb.TaskRes:
    task = _task(asked.task.consumer, asked.task.producer, (asked.task_id,))
    return pb.TaskRes(group_id=_KIND, run_id=asked.run_id, task=task)


def _task(producer: pb.Node, consumer: pb.Node, ancestry: Sequence[str]) -> pb.Task:
    return pb.Task(
        producer=producer,
        consumer=consumer,
        created_at=time.time(),
        ttl=60.0,
        ancestry=ancestry,
        task_type=_KIND,
        recordset=_CONTENT,
    )
