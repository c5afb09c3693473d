"""Models as NumPy arrays, and as the .npy files they travel as."""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from superlink_trio.federation.types import Parameters

NDArray: TypeAlias = npt.NDArray[Any]
NDArrays: TypeAlias = list[NDArray]

# numpy refuses headers of more than 10,000 bytes, as a protection of its own parser.
_LONGEST_HEADER = 10_240

# What numpy's parser of headers, which is Python's own, makes of the worst ones.
_HEADER_ERRORS = (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


class UnusableTensor(ValueError):
    """Bytes that are no .npy file of plain numbers."""


def ndarrays_to_parameters(ndarrays: Iterable[NDArray]) -> Parameters:
    """Serialise the arrays of a model. Raises ValueError for an array of Python objects."""
    return Parameters([write_array(array) for array in ndarrays], "numpy.ndarray")


def parameters_to_ndarrays(parameters: Any) -> NDArrays:
    """Give the arrays of a model, copied out of its bytes. Raises UnusableTensor."""
    return [read_array(tensor).copy() for tensor in parameters.tensors]


def write_array(array: NDArray) -> bytes:
    """Serialise an array as an .npy file (format 1.0); its data is copied once."""
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise ValueError(f"an array of {array.dtype} cannot travel: its objects would be pickled")
    head = io.BytesIO()
    fields = {**np.lib.format.header_data_from_array_1_0(array), "fortran_order": False}
    np.lib.format.write_array_header_1_0(head, fields)
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return b"".join((head.getbuffer(), data.data))


def read_array(tensor: bytes | memoryview) -> NDArray:
    """Read an .npy file; the array is a view into its bytes, and cannot be written to.

    Raises UnusableTensor. Nothing is unpickled.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    view = memoryview(tensor)
    head = io.BytesIO(view[:_LONGEST_HEADER])
    try:
        version = np.lib.format.read_magic(head)
        if version not in _HEADERS:
            raise UnusableTensor(f"a tensor is an .npy file of format {version}")
        shape, fortran, dtype = _HEADERS[version](head)
    except _HEADER_ERRORS as error:
        raise UnusableTensor(f"a tensor is no .npy file: {error}") from error
    if dtype.kind not in "biufc":
        raise UnusableTensor(f"a tensor holds {dtype}, which are no numbers")
    count, start = math.prod(shape), head.tell()
    if min(shape, default=0) < 0 or len(view) - start < count * dtype.itemsize:
        raise UnusableTensor(f"a tensor of shape {shape} is cut off")
    data = view[start : start + count * dtype.itemsize]
    array: NDArray = np.frombuffer(data, dtype) if count else np.empty(0, dtype)
    try:
        return array.reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError) as error:
        raise UnusableTensor(f"no array has the shape {shape}") from error


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
