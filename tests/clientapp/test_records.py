from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from superlink_trio.clientapp import Array, RecordSet, decode, encode
from superlink_trio.wire import recordset_pb2 as pb

_texts = st.text(max_size=8)
_ints = st.integers(-(2**63), 2**63 - 1)
_floats = st.floats(allow_nan=False)
_metric_values = _ints | _floats | st.lists(_ints, max_size=4) | st.lists(_floats, max_size=4)
_config_values = (
    _metric_values
    | st.booleans()
    | _texts
    | st.binary(max_size=8)
    | st.lists(st.booleans(), max_size=4)
    | st.lists(_texts, max_size=4)
    | st.lists(st.binary(max_size=8), max_size=4)
)
_dtypes = (
    arrays.scalar_dtypes() | arrays.unicode_string_dtypes(max_len=4) | arrays.byte_string_dtypes()
)
_arrays = arrays.arrays(_dtypes, arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
_foreign = st.builds(
    Array,
    dtype=_texts,
    shape=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    stype=_texts,
    data=st.binary(max_size=9),
)


def _records(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, dict[str, Any]]]:
    return st.dictionaries(_texts, st.dictionaries(_texts, values, max_size=3), max_size=3)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        assert list(one) == list(other)
        return all(_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        return bool(one.tobytes() == other.tobytes())
    return bool(type(one) is type(other) and one == other)


def _ordered(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    # A map on the wire has no order.
    return {name: dict(sorted(record.items())) for name, record in sorted(records.items())}


@given(_records(_arrays | _foreign), _records(_metric_values), _records(_config_values))
def test_what_is_encoded_is_decoded_again(
    parameters: Any, metrics: dict[str, Any], configs: dict[str, Any]
) -> None:
    read = decode(encode(RecordSet(parameters, metrics, configs)))
    assert _same(parameters, read.parameters)
    assert _same(_ordered(metrics), _ordered(read.metrics))
    assert _same(_ordered(configs), _ordered(read.configs))


@given(_records(_arrays), _records(_metric_values))
def test_protobuf_reads_the_same(parameters: Any, metrics: dict[str, Any]) -> None:
    message = pb.RecordSet.FromString(encode(RecordSet(parameters, metrics)))
    assert set(message.metrics) == set(metrics)
    for name, record in parameters.items():
        assert list(message.parameters[name].data_keys) == list(record)
        for array, written in zip(
            record.values(), message.parameters[name].data_values, strict=True
        ):
            assert (written.dtype, tuple(written.shape)) == (str(array.dtype), array.shape)
            assert written.stype == "numpy.ndarray"


@given(st.binary(max_size=64))
def test_bytes_that_are_no_record_set_are_told(raw: bytes) -> None:
    try:
        decode(raw)
    except ValueError:
        return


@given(st.binary(max_size=200), st.booleans())
def test_array_data_that_is_no_array_is_told(data: bytes, with_magic: bool) -> None:
    array = pb.Array(
        stype="numpy.ndarray", data=(b"\x93NUMPY\x01\x00" if with_magic else b"") + data
    )
    message = pb.RecordSet()
    message.parameters["a"].data_keys.append("b")
    message.parameters["a"].data_values.append(array)
    with pytest.raises(ValueError, match=r"parameters\['a'\]\['b'\] is no array"):
        decode(message.SerializeToString())


def test_arrays_may_be_changed_in_place() -> None:
    raw = encode(RecordSet({"model": {"weights": np.arange(6.0)}}))
    weights = decode(raw).parameters["model"]["weights"]
    assert isinstance(weights, np.ndarray)
    assert weights.flags.aligned
    weights += 1
    np.testing.assert_array_equal(weights, np.arange(1.0, 7.0))
    assert raw == encode(RecordSet({"model": {"weights": np.arange(6.0)}}))


@pytest.mark.parametrize(
    "array",
    [np.arange(12).reshape(3, 4).T, np.arange(12)[::3], np.arange(4)[::-1], np.float32(1.5)],
    ids=["transposed", "strided", "reversed", "scalar"],
)
def test_arrays_of_any_layout_keep_their_values(array: npt.NDArray[Any]) -> None:
    read = decode(encode(RecordSet({"model": {"weights": array}}))).parameters["model"]["weights"]
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, array)


def test_arrays_in_fortran_order_are_read() -> None:
    file = io.BytesIO()
    np.save(file, np.asfortranarray([[1, 2, 3], [4, 5, 6]]))
    message = pb.RecordSet()
    message.parameters["a"].data_keys.append("b")
    message.parameters["a"].data_values.append(
        pb.Array(stype="numpy.ndarray", data=file.getvalue())
    )
    read = decode(message.SerializeToString()).parameters["a"]["b"]
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ({"metrics": {"fit": {"ok": True}}}, r"metrics\['fit'\]\['ok'\] is a bool"),
        ({"metrics": {"fit": {"loss": np.float32(1)}}}, "is a numpy.float32; allowed are"),
        ({"metrics": {"fit": {"n": 2**63}}}, "does not fit into 64 bits"),
        ({"metrics": {"fit": {"l": [1, 2.0]}}}, "mixes float and int"),
        ({"configs": {"c": {"none": None}}}, r"configs\['c'\]\['none'\] is a NoneType"),
        ({"configs": {"c": {"l": [1, "a"]}}}, "mixes int and str"),
        ({"configs": {"c": {"l": [[1]]}}}, r"configs\['c'\]\['l'\]\[0\] is a list"),
        ({"configs": {"c": {3: 4}}}, "has the key 3, a int"),
        ({"configs": {"c": 4}}, r"configs\['c'\] is a int, not a dict"),
        ({"parameters": {"p": {"a": [1.0]}}}, r"parameters\['p'\]\['a'\] is a list"),
        ({"parameters": {"p": {"a": np.array([None])}}}, "is an array of object"),
    ],
)
def test_what_cannot_be_sent_is_named(records: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        encode(RecordSet(**records))


def test_pickled_arrays_are_refused() -> None:
    file = io.BytesIO()
    np.save(file, np.array([None, 1]), allow_pickle=True)
    message = pb.RecordSet()
    message.parameters["a"].data_keys.append("b")
    message.parameters["a"].data_values.append(
        pb.Array(stype="numpy.ndarray", data=file.getvalue())
    )
    with pytest.raises(ValueError, match="arrays of Python objects are not read"):
        decode(message.SerializeToString())
