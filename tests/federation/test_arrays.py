from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from superlink_trio.federation import (
    Parameters,
    UnusableTensor,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from superlink_trio.federation.arrays import read_array, write_array

NUMBERS = (
    npst.floating_dtypes(endianness="?")
    | npst.integer_dtypes(endianness="?")
    | npst.unsigned_integer_dtypes(endianness="?")
    | npst.complex_number_dtypes(endianness="?")
    | npst.boolean_dtypes()
)
ARRAYS = npst.arrays(NUMBERS, npst.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


@given(ARRAYS, st.sampled_from(["C", "F", "reversed"]))
def test_numpy_reads_what_is_written(array: Any, order: str) -> None:
    laid_out = array[::-1] if order == "reversed" and array.ndim else np.asarray(array, order="C")
    if order == "F":
        laid_out = np.asarray(array, order="F")
    read = np.load(io.BytesIO(write_array(laid_out)), allow_pickle=False)
    assert (read.dtype, read.shape) == (laid_out.dtype, laid_out.shape)
    assert read.tobytes() == laid_out.tobytes()


@given(ARRAYS, st.sampled_from(["C", "F"]))
def test_what_numpy_writes_is_read(array: Any, order: Any) -> None:
    laid_out = np.asarray(array, order=order)
    read = read_array(saved(laid_out))
    assert (read.dtype, read.shape) == (laid_out.dtype, laid_out.shape)
    assert read.tobytes() == laid_out.tobytes()


def test_reading_copies_nothing_but_the_user_gets_arrays_of_their_own() -> None:
    tensor = write_array(np.arange(3.0))
    assert not read_array(tensor).flags.writeable
    [array] = parameters_to_ndarrays(Parameters([tensor]))
    array += 1
    assert array.tolist() == [1, 2, 3]
    assert read_array(tensor).tolist() == [0, 1, 2]


def test_a_model_is_its_arrays() -> None:
    parameters = ndarrays_to_parameters([np.zeros((2, 3)), np.ones(4, np.float32)])
    assert parameters.tensor_type == "numpy.ndarray"
    first, second = parameters_to_ndarrays(parameters)
    assert (first.shape, second.dtype.name) == ((2, 3), "float32")


@given(st.binary() | ARRAYS.map(saved), st.integers(0, 300))
def test_any_bytes_are_an_array_or_unusable(raw: bytes, cut_off: int) -> None:
    raw = raw[: max(0, len(raw) - cut_off)]
    with suppress(UnusableTensor):
        array = read_array(raw)
        assert array.tobytes() == np.load(io.BytesIO(raw), allow_pickle=False).tobytes()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10000000000000000000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + str((1,) * 70) + ", }",
        "{" * 5000,
    ],
)
def test_headers_that_promise_too_much_are_unusable(header: str) -> None:
    text = header.encode() + b"\n"
    raw = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)
    with pytest.raises(UnusableTensor):
        read_array(raw)


def test_objects_do_not_travel() -> None:
    with pytest.raises(ValueError, match="object"):
        write_array(np.array([object()]))
