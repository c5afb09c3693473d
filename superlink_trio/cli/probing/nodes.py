"""A node of Flower 1.23 and later, which comes and goes.

No message goes with it: that would need a run, and a run a program.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from contextlib import suppress

import attrs
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from superlink_trio.cli.probing.steps import Failed, Steps
from superlink_trio.transport.client import Begin, at_once
from superlink_trio.wire import messages_pb2 as pb

_INTERVAL = 30.0  # seconds between two heartbeats, as Flower's own nodes say

ADVICE: Mapping[str, str] = {
    "": "Does a SuperLink listen there with --port, and is it http or https? Where it speaks TLS "
    "give --root-certificates.",
    "401": "A signature has the time in it: are the clocks of both machines right?",
    "404": "That port serves something else: --superlink is where `superlink-trio --port` listens.",
    "405": "That port serves something else: --superlink is where `superlink-trio --port` listens.",
    "412": "Where nodes have to be registered by the operator (--enable-supernode-auth) a probe's "
    "is refused: `superlink-trio status` needs none.",
}


@attrs.frozen
class Signer:
    """A key of the probe's own, with which each call is signed."""

    _key: ec.EllipticCurvePrivateKey = attrs.field(
        factory=lambda: ec.generate_private_key(ec.SECP384R1()), repr=False
    )

    @property
    def public(self) -> bytes:
        """The public key, as PEM SubjectPublicKeyInfo."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def headers(self) -> Mapping[str, str]:
        """Sign a call that is made now."""
        time = datetime.datetime.now(tz=datetime.UTC).isoformat()
        signature = self._key.sign(time.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": base64.b64encode(self.public).decode(),
            "flwr-signature": base64.b64encode(signature).decode(),
            "flwr-timestamp": time,
        }


@attrs.frozen(kw_only=True)
class NodeProbe:
    """The way of one node. `fleet` makes calls that `signer` signs."""

    fleet: Begin
    signer: Signer
    steps: Steps

    def run(self) -> None:
        """Go all the way. Raises Failed."""
        key = self.signer.public
        node_id = self.steps.ask(
            *("register a SuperNode", at_once(self.fleet), "RegisterNode"),
            pb.RegisterNodeFleetRequest(public_key=key),
            pb.RegisterNodeFleetResponse,
        ).node_id
        try:
            self._come_and_go(node_id)
        except BaseException:
            with suppress(Failed):  # what failed first is told
                self._unregister(node_id)
            raise

    def _come_and_go(self, node_id: int) -> None:
        node, send = pb.Node(node_id=node_id), at_once(self.fleet)
        self.steps.ask(
            *("activate it", send, "ActivateNode"),
            pb.ActivateNodeRequest(public_key=self.signer.public, heartbeat_interval=_INTERVAL),
            pb.ActivateNodeResponse,
        )
        # It is held for as long as the node is there.
        end_pull = self.steps.begin(
            *("pull as it", self.fleet, "PullMessages"),
            pb.PullMessagesRequest(node=node),
            pb.PullMessagesResponse,
        )
        known = self.steps.ask(
            *("send a heartbeat", send, "SendNodeHeartbeat"),
            pb.SendNodeHeartbeatRequest(node=node, heartbeat_interval=_INTERVAL),
            pb.SendNodeHeartbeatResponse,
        ).success
        if not known:
            raise Failed("send a heartbeat: the node that was just registered is not known")
        self.steps.ask(
            *("deactivate it", send, "DeactivateNode"),
            pb.DeactivateNodeRequest(node_id=node_id),
            pb.DeactivateNodeResponse,
        )
        self._unregister(node_id)
        end_pull("end its held pull")

    def _unregister(self, node_id: int) -> None:
        self.steps.may_sign_off()
        self.steps.ask(
            *("unregister it", at_once(self.fleet), "UnregisterNode"),
            pb.UnregisterNodeFleetRequest(node_id=node_id),
            pb.UnregisterNodeFleetResponse,
        )
