from __future__ import annotations

import ast
import io
import subprocess
import sys
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from superlink_trio.wire import npy

VALUES = (
    npst.floating_dtypes(endianness="?")
    | npst.integer_dtypes(endianness="?")
    | npst.unsigned_integer_dtypes(endianness="?")
    | npst.complex_number_dtypes(endianness="?")
    | npst.boolean_dtypes()
    | npst.unicode_string_dtypes(endianness="?")
    | npst.byte_string_dtypes()
    | npst.datetime64_dtypes(endianness="?")
)
ARRAYS = npst.arrays(VALUES, npst.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def with_header(header: str, version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + bytes(100)


@given(ARRAYS, st.sampled_from(["C", "F", "reversed"]))
def test_numpy_reads_what_is_written(array: Any, order: str) -> None:
    laid_out = array[::-1] if order == "reversed" and array.ndim else np.asarray(array, order="C")
    if order == "F":
        laid_out = np.asarray(array, order="F")
    read = np.load(io.BytesIO(b"".join(npy.write(laid_out))), allow_pickle=False)
    assert (read.dtype, read.shape) == (laid_out.dtype, laid_out.shape)
    assert read.tobytes() == laid_out.tobytes()


@given(ARRAYS, st.sampled_from(["C", "F"]))
def test_what_numpy_writes_is_read(array: Any, order: Any) -> None:
    laid_out = np.asarray(array, order=order)
    read = npy.read(saved(laid_out))
    assert (read.dtype, read.shape) == (laid_out.dtype, laid_out.shape)
    assert read.tobytes() == laid_out.tobytes()
    assert not read.flags.writeable


@given(st.binary() | ARRAYS.map(saved), st.integers(0, 300))
def test_any_bytes_are_an_array_or_none(raw: bytes, cut_off: int) -> None:
    raw = raw[: max(0, len(raw) - cut_off)]
    with suppress(npy.NotNpy):
        array = npy.read(raw)
        assert array.tobytes() == np.load(io.BytesIO(raw), allow_pickle=False).tobytes()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{'shape': (2,3), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr":"<f4","fortran_order":False,"shape":(2,3)}',
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_headers_of_other_programs_are_read(header: str, version: int) -> None:
    array = npy.read(with_header(header, version))
    assert (array.dtype, array.shape) == (np.dtype("<f4"), (2, 3))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10000000000000000000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, " + "9" * 5000 + "), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<U999999999', 'fortran_order': False, 'shape': (0,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + str((1,) * 70) + ", }",
        "{" * 5000,
        " " * 20_000,
    ],
)
def test_headers_that_promise_too_much_are_none(header: str) -> None:
    with pytest.raises(npy.NotNpy):
        npy.read(with_header(header))


def test_headers_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object, **__: object) -> NoReturn:
        raise SystemError("another thread compiles as well")

    raw = saved(np.arange(3))
    monkeypatch.setattr(ast, "parse", parse)
    assert npy.read(raw).tolist() == [0, 1, 2]


def test_objects_do_not_travel() -> None:
    with pytest.raises(ValueError, match="object"):
        npy.write(np.array([object()]))


@pytest.mark.parametrize("name", ["start_server", "FedAvg"])
def test_where_numpy_is_missing_the_error_says_what_to_do(name: str) -> None:
    program = f"import sys; sys.modules['numpy'] = None; from superlink_trio import {name}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: arrays need NumPy")
    assert last.endswith(f"{sys.executable} -m pip install numpy")
