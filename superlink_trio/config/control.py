"""The options that say where Flower's command line `flwr` connects, and who may use it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs
from attrs import field

from superlink_trio.config import kinds
from superlink_trio.config.address import Address
from superlink_trio.config.options import Apis, Section, option

_control = partial(option, Section.CONTROL, Apis.BOTH)


# With slots it could not be a base beside another one.
@attrs.frozen(kw_only=True, slots=False)
class ControlOptions:
    """Where the Control API is served, and to whom; all of them go with `port`."""

    control_address: Address | None = field(
        default=None,
        converter=kinds.to_address,
        metadata=_control(
            kinds.ADDRESS,
            "where flwr of 1.37 on connects, and no longer on --port: a port for operators alone",
            shown_default="on --port",
        ),
    )
    """None: on `port`, with everything else of Flower 1.35 and later."""
    control_grpc_address: Address | None = field(
        default=None,
        converter=kinds.to_address,
        metadata=_control(
            kinds.ADDRESS,
            "where flwr of 1.21 to 1.36 connects, over gRPC: it expects port 9093",
            shown_default="not served",
        ),
    )
    """None: not served."""
    control_token_file: Path | None = field(
        default=None,
        converter=kinds.to_path,
        metadata=_control(
            kinds.FILE,
            "let flwr in with one of the tokens in this file, one a line, from everywhere; "
            "SIGHUP reads it again",
            shown_default="flwr of this machine only, without a token",
        ),
    )
    """None: callers on this machine, without a token."""
