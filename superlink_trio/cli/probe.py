"""`superlink-trio probe`: takes a task through a SuperLink and back, and says how long it took."""

from __future__ import annotations

import argparse
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import attrs
from google.protobuf.message import DecodeError, Message

from superlink_trio.cli.status import NotTold, overview_at
from superlink_trio.config import Address
from superlink_trio.logs.wording import described, harmless
from superlink_trio.transport.client import NotAnswered, Send, Trust, over_grpc, over_rest
from superlink_trio.wire import superlink_pb2 as pb

_DRIVER = pb.Node(node_id=0, anonymous=True)
_KIND, _CONTENT = "probe", b"a task of superlink-trio probe"

# Seconds that are left for signing off, whatever else took how long.
_PARTING = 1.0

_Answer = TypeVar("_Answer", bound=Message)


class Failed(Exception):
    """A step of the probe failed; says which, why, and what to do."""


def probe(argv: Sequence[str]) -> int:
    """Run the command and answer the exit status: 0 when the task came back."""
    parser = argparse.ArgumentParser(prog="superlink-trio probe")
    fill_probe(parser)
    given = parser.parse_args(argv)
    try:
        trust = Trust(
            roots=_contents(given.root_certificates),
            certificate=_contents(given.client_certificate),
            key=_contents(given.client_key),
        )
        driver = over_grpc(Address.parse(given.driver), "flwr.proto.Driver", trust)
        fleet = _fleet(given.fleet, attrs.evolve(trust, certificate=None, key=None))
        admin = None if given.admin_address is None else Address.parse(given.admin_address)
    except (OSError, ValueError) as error:
        parser.error(described(error))
    # However it is ended, its node signs off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    probe = _Probe(driver=driver, fleet=fleet, deadline=time.monotonic() + given.timeout)
    try:
        run_id = probe.run()
        whose = "" if admin is None else f" from superlink-trio {overview_at(admin)['version']}"
    except (Failed, NotTold) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"{parser.prog}: {harmless(line)}\n")
        return 1
    sys.stdout.write(f"{'all of it':<28}{sum(probe.took.values()):>9.1f} ms\n")
    sys.stdout.write(
        f"A task came back{whose}; run {run_id}, which it belonged to, stays in the state.\n"
    )
    return 0


def fill_probe(parser: argparse.ArgumentParser) -> None:
    """Let a parser take what `superlink-trio probe` takes."""
    parser.description = (
        "Take one small task through a running SuperLink: open a run, register a node, "
        "push a task to it, pull it, answer, pull the answer, sign the node off. Tells how long "
        "each step took; the exit status is 0 when the answer came back, 1 when it did not."
    )
    parser.epilog = (
        "The run stays in the state: runs cannot be deleted. The node is online for the few "
        "milliseconds between its pull and its end; a driver that asks for nodes just then may "
        "choose it, and gets an error for it in place of an answer. A SuperLink whose nodes "
        "authenticate refuses the probe's node, which has no key."
    )
    parser.add_argument(
        "--driver", required=True, metavar="HOST:PORT", help="where the Driver API listens"
    )
    parser.add_argument(
        "--fleet",
        required=True,
        metavar="HOST:PORT",
        help="where the Fleet API listens; http://HOST:PORT or https://HOST:PORT for REST",
    )
    parser.add_argument(
        "--admin-address",
        metavar="HOST:PORT",
        help="where its admin surface listens, which tells its version",
    )
    parser.add_argument(
        "--root-certificates", type=Path, metavar="FILE", help="whom to trust, PEM; TLS with it"
    )
    parser.add_argument(
        "--client-certificate", type=Path, metavar="FILE", help="for a Driver API that wants one"
    )
    parser.add_argument(
        "--client-key", type=Path, metavar="FILE", help="the key that belongs to it"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="for all steps together [default: 10]",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: must be more than 0 and less than 3600")
    return seconds


def _contents(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _fleet(text: str, trust: Trust) -> Send:
    if "://" not in text:
        return over_grpc(Address.parse(text), "flwr.proto.Fleet", trust)
    url = urlsplit(text)
    if url.scheme not in ("http", "https"):
        raise ValueError(f"{text!r}: write HOST:PORT, http://HOST:PORT or https://HOST:PORT")
    try:
        return over_rest(Address.parse(url.netloc), trust, tls=url.scheme == "https")
    except ssl.SSLError as error:
        raise ValueError(f"--root-certificates: {described(error)}") from None


@attrs.define(kw_only=True)
class _Probe:
    """The way of one task. `deadline` is a time of `time.monotonic`."""

    driver: Send
    fleet: Send
    deadline: float
    took: dict[str, float] = attrs.field(factory=dict)
    """Milliseconds of each step."""

    def run(self) -> int:
        """Go all the way, and print each step; give the run's id. Raises Failed."""
        run_id = self._ask(
            *("open a run", self.driver, "CreateRun"), pb.CreateRunRequest(), pb.CreateRunResponse
        ).run_id
        # It never pings: from its pull on it is online, and from nothing else.
        node = self._ask(
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
        self.deadline = max(self.deadline, time.monotonic() + _PARTING)
        self._ask(
            *("sign the node off", self.fleet, "DeleteNode"),
            pb.DeleteNodeRequest(node=node),
            pb.DeleteNodeResponse,
        )

    def _take_a_task(self, run_id: int, node: pb.Node) -> None:
        [task_id] = self._ask(
            *("push a task", self.driver, "PushTaskIns"),
            pb.PushTaskInsRequest(task_ins_list=[_task_ins(run_id, node)]),
            pb.PushTaskInsResponse,
        ).task_ids
        pulled = self._ask(
            *("pull it as the node", self.fleet, "PullTaskIns"),
            pb.PullTaskInsRequest(node=node),
            pb.PullTaskInsResponse,
        ).task_ins_list
        if [task.task_id for task in pulled] != [task_id]:
            raise Failed(
                "pull it as the node: the task did not come. Do --driver and --fleet belong to one "
                "SuperLink, or to two over one database?"
            )
        self._ask(
            *("push its answer", self.fleet, "PushTaskRes"),
            pb.PushTaskResRequest(task_res_list=[_task_res(pulled[0])]),
            pb.PushTaskResResponse,
        )
        answers = self._ask(
            *("pull the answer", self.driver, "PullTaskRes"),
            pb.PullTaskResRequest(node=_DRIVER, task_ids=[task_id]),
            pb.PullTaskResResponse,
        ).task_res_list
        if [answer.task.recordset for answer in answers] != [_CONTENT]:
            raise Failed("pull the answer: it is not what the node has answered")

    def _ask(
        self, step: str, send: Send, name: str, request: Message, response: type[_Answer]
    ) -> _Answer:
        began = time.monotonic()
        left = max(0.001, self.deadline - began)
        try:
            answer = response.FromString(send(name, request.SerializeToString(), left))
        except NotAnswered as error:
            raise Failed(f"{step}: {error}\n{_advice(error.code)}") from None
        except DecodeError:
            raise Failed(f"{step}: what answered is no SuperLink") from None
        self.took[step] = (time.monotonic() - began) * 1000
        sys.stdout.write(f"{step:<28}{self.took[step]:>9.1f} ms\n")
        return answer


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


_ELSEWHERE = "That port serves something else: are --driver and --fleet mixed up?"
_NO_KEY = (
    "Nodes have to have a key there, which a probe has not: `superlink-trio status` needs none."
)
_ADVICE = {
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


def _advice(code: str) -> str:
    return _ADVICE.get(code, "The SuperLink's log says more.")
