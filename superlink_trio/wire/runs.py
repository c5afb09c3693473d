"""Runs and Flower app bundles, and how they look on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from superlink_trio.wire import messages_pb2
from superlink_trio.wire import superlink_pb2 as pb

Scalar: TypeAlias = float | int | bool | str | bytes


@attrs.frozen(kw_only=True)
class Fab:
    """A Flower app bundle: its SHA-256 as lower-case hex, and its bytes."""

    hash: str
    content: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Run:
    """A training run, as its driver described it. `run_id` is 0 until a store gave it one."""

    run_id: int = 0
    fab_id: str = ""
    fab_version: str = ""
    override_config: Mapping[str, Scalar] = attrs.field(factory=dict)
    fab_hash: str = ""


def read_run(request: pb.CreateRunRequest) -> Run:
    """Read the run that a CreateRunRequest describes."""
    return Run(
        fab_id=request.fab_id,
        fab_version=request.fab_version,
        override_config=read_scalars(request.override_config),
        fab_hash=request.fab.hash_str,
    )


def write_run(run: Run) -> pb.Run:
    """Give the run as it is answered to GetRun."""
    return pb.Run(
        run_id=run.run_id,
        fab_id=run.fab_id,
        fab_version=run.fab_version,
        override_config={key: write_scalar(value) for key, value in run.override_config.items()},
        fab_hash=run.fab_hash,
    )


def write_fab(fab: Fab) -> pb.Fab:
    """Give the bundle as it is answered to GetFab."""
    return pb.Fab(hash_str=fab.hash, content=fab.content)


def read_scalars(
    scalars: Mapping[str, pb.Scalar] | Mapping[str, messages_pb2.Scalar],
) -> dict[str, Scalar]:
    """Read a map of scalars, of either generation; one that holds nothing is left out."""
    return {
        key: getattr(scalar, kind)
        for key, scalar in scalars.items()
        if (kind := scalar.WhichOneof("scalar")) is not None
    }


def write_scalar(value: Scalar) -> pb.Scalar:
    """Give a value as messages carry it. Raises TypeError if it is none of the five types."""
    # bool first: it is an int as well.
    if isinstance(value, bool):
        return pb.Scalar(bool_value=value)
    if isinstance(value, int):
        return pb.Scalar(sint64_value=value)
    if isinstance(value, float):
        return pb.Scalar(double_value=value)
    if isinstance(value, str):
        return pb.Scalar(string_value=value)
    if isinstance(value, bytes):
        return pb.Scalar(bytes_value=value)
    kind = type(value).__name__
    raise TypeError(f"{value!r} is a {kind}, not a float, int, bool, str or bytes")
