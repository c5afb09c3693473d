"""Arrays as .npy files, the form in which models travel.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import re
import sys
from typing import Any, Literal, TypeAlias, TypeGuard

try:
    import numpy as np
    import numpy.typing as npt
except ModuleNotFoundError as error:
    hint = f"arrays need NumPy, which is not there: {sys.executable} -m pip install numpy"
    raise ModuleNotFoundError(hint, name="numpy") from error

NDArray: TypeAlias = npt.NDArray[Any]

# Of each version: the bytes of the header's length, which is little-endian.
_LENGTHS = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
_MAGIC = 8

# Longer headers describe the fields of structured arrays; numpy refuses them as well.
_LONGEST_HEADER = 10_000

# A header is a Python dict. numpy has Python compile it, and that fails now and then in two threads
# at once, before Python 3.11.8.
# Source: https://github.com/python/cpython/issues/106905
_DTYPE = re.compile(
    r"""["']descr["']\s*:\s*["']([<>|=]?[biufcmMSUVO?]\d{0,8}(?:\[\w{1,9}\])?)["']"""
)
_FORTRAN = re.compile(r"""["']fortran_order["']\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""["']shape["']\s*:\s*\(([\d\s,]*)\)""")


class NotNpy(ValueError):
    """Bytes that are no .npy file of plain values."""


def is_array(value: object) -> TypeGuard[NDArray | np.generic[Any]]:
    """Return whether `write` takes it: arithmetic on an array without dimensions gives a scalar."""
    return isinstance(value, np.ndarray | np.generic)


def write(array: npt.ArrayLike) -> tuple[bytes, memoryview]:
    """Give the header and the data of an .npy file (format 1.0).

    Data that lies in C order is not copied. Raises ValueError for an array of Python objects.
    """
    # Not ascontiguousarray(), which makes one dimension of none.
    plain = np.asarray(array, order="C")
    if plain.dtype.hasobject:
        raise ValueError(f"an array of {plain.dtype} cannot travel: its objects would be pickled")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(plain))
    # Times have no buffer of their own, and what is empty cannot be viewed as bytes.
    data = plain.reshape(-1).view(np.uint8).data if plain.nbytes else memoryview(b"")
    return head.getvalue(), data


def read(file: bytes | memoryview) -> NDArray:
    """Give an .npy file's array: a view into its bytes, perhaps not aligned.

    What follows the array is left alone, as numpy does. Raises NotNpy, also for arrays of Python
    objects and structured ones.
    """
    view = memoryview(file)
    shape, dtype, order, start = _read_header(view)
    if len(view) - start < math.prod(shape) * dtype.itemsize:
        raise NotNpy(f"an array of {dtype} of shape {shape} is cut off")
    try:
        return np.ndarray(shape, dtype, view[start:], order=order)
    except (ValueError, OverflowError) as error:
        raise NotNpy(f"no array has the shape {shape}") from error


def _read_header(view: memoryview) -> tuple[tuple[int, ...], np.dtype, Literal["C", "F"], int]:
    """Give an array's shape, dtype and order, and where its data begins."""
    width = _LENGTHS.get(bytes(view[:_MAGIC]))
    if width is None:
        raise NotNpy("it does not begin as an .npy file of version 1.0 or 2.0 does")
    begin = _MAGIC + width
    end = begin + int.from_bytes(view[_MAGIC:begin], "little")
    if end > min(len(view), begin + _LONGEST_HEADER):
        raise NotNpy("its header is cut off, or longer than that of plain values")
    text = str(view[begin:end], "latin1")
    fields = _DTYPE.search(text), _FORTRAN.search(text), _SHAPE.search(text)
    if not all(fields):
        raise NotNpy(f"its header does not describe an array of plain values: {text[:200]!r}")
    descr, fortran, sizes = (field[1] for field in fields if field)
    try:
        dtype = np.dtype(descr)
        shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    except (TypeError, ValueError) as error:
        raise NotNpy(f"its header does not make sense: {error}") from error
    if dtype.hasobject:
        raise NotNpy("arrays of Python objects are not read")
    return shape, dtype, "F" if fortran == "True" else "C", end
