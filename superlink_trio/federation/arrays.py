"""Models as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from superlink_trio.federation.protocols import ParametersLike
from superlink_trio.federation.types import Parameters
from superlink_trio.wire import npy
from superlink_trio.wire.npy import NDArray

NDArrays: TypeAlias = list[NDArray]


class UnusableTensor(ValueError):
    """Bytes that are no .npy file of plain numbers."""


def ndarrays_to_parameters(ndarrays: Iterable[NDArray]) -> Parameters:
    """Serialise the arrays of a model. Raises ValueError for an array of Python objects."""
    return Parameters([write_array(array) for array in ndarrays], "numpy.ndarray")


def parameters_to_ndarrays(parameters: ParametersLike) -> NDArrays:
    """Give the arrays of a model, copied out of its bytes. Raises UnusableTensor."""
    return [read_array(tensor).copy() for tensor in parameters.tensors]


def write_array(array: NDArray) -> bytes:
    """Serialise an array as an .npy file; its data is copied once."""
    return b"".join(npy.write(array))


def read_array(tensor: bytes | memoryview) -> NDArray:
    """Read an .npy file of numbers; the array is a view into its bytes, and cannot be written to.

    Raises UnusableTensor. Nothing is unpickled.
    """
    try:
        array = npy.read(tensor)
    except npy.NotNpy as error:
        raise UnusableTensor(f"a tensor is no .npy file of numbers: {error}") from error
    if array.dtype.kind not in "biufc":
        raise UnusableTensor(f"a tensor holds {array.dtype}, which are no numbers")
    return array
