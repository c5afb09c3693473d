"""RecordSets of plain dicts, and how they look on the wire.

Arrays are copied once on their way in and once on their way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from google.protobuf.message import DecodeError

from superlink_trio.wire import recordset_pb2 as pb
from superlink_trio.wire.splice import Buffer, Malformed, find, split, wrap

if TYPE_CHECKING:
    import numpy.typing as npt

# Field numbers of proto/superlink_trio/wire/recordset.proto.
_PARAMETERS, _MAP_KEY, _MAP_VALUE, _DATA_KEYS, _DATA_VALUES, _ARRAY_DATA = 1, 1, 2, 1, 2, 4

_NUMPY = "numpy.ndarray"
_SINT64 = range(-(2**63), 2**63)

MetricValue: TypeAlias = float | int | list[float] | list[int]
ConfigValue: TypeAlias = MetricValue | bool | str | bytes | list[bool] | list[str] | list[bytes]


@attrs.frozen(kw_only=True)
class Array:
    """An array in a serialisation that is not NumPy's, as it is on the wire."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    data: bytes = attrs.field(repr=False)


@attrs.define
class RecordSet:
    """Named records of three kinds; each record maps names to values.

    `parameters` hold NumPy arrays (of numbers, texts or times; no objects), or `Array` for what is
    serialised otherwise. `metrics` hold ints, floats, and lists of either; `configs` also bools,
    texts, bytes, and lists of one of them. Ints have 64 bits. Values are checked when the
    RecordSet leaves the app.
    """

    parameters: dict[str, dict[str, npt.NDArray[Any] | Array]] = attrs.field(factory=dict)
    metrics: dict[str, dict[str, MetricValue]] = attrs.field(factory=dict)
    configs: dict[str, dict[str, ConfigValue]] = attrs.field(factory=dict)


def encode(records: RecordSet) -> bytes:
    """Serialise a RecordSet.

    Raises TypeError or ValueError, naming the record and the key, for what it cannot carry.
    """
    rest = pb.RecordSet()
    for name, metrics in _items(records.metrics, "metrics"):
        rest.metrics[name].SetInParent()
        for key, value in _items(metrics, f"metrics[{name!r}]"):
            where = f"metrics[{name!r}][{key!r}]"
            _fill(rest.metrics[name].data[key], value, _METRIC_FIELDS, where)
    for name, configs in _items(records.configs, "configs"):
        rest.configs[name].SetInParent()
        for key, value in _items(configs, f"configs[{name!r}]"):
            where = f"configs[{name!r}][{key!r}]"
            _fill(rest.configs[name].data[key], value, _CONFIG_FIELDS, where)
    parts: list[Buffer] = [rest.SerializeToString()]
    for name, arrays in _items(records.parameters, "parameters"):
        record = _write_parameters(_items(arrays, f"parameters[{name!r}]"), name)
        parts += wrap(_PARAMETERS, [*_text(_MAP_KEY, name), *wrap(_MAP_VALUE, record)])
    return b"".join(parts)


def decode(raw: Buffer) -> RecordSet:
    """Read a serialised RecordSet, of which nothing is kept.

    Raises ValueError where it is none, or holds an array that is not as it says.
    """
    try:
        entries, rest = split(memoryview(raw), _PARAMETERS)
        others = pb.RecordSet.FromString(rest)
        parameters = dict(map(_read_parameters, entries))
    except (Malformed, DecodeError) as error:
        raise ValueError(f"the content is no RecordSet: {error}") from error
    return RecordSet(
        parameters=parameters,
        metrics={name: _values(record.data, name) for name, record in others.metrics.items()},
        configs={name: _values(record.data, name) for name, record in others.configs.items()},
    )


def _items(record: object, where: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(record, Mapping):
        raise TypeError(f"{where} is a {_kind(record)}, not a dict")
    for key in record:
        if not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r}, a {_kind(key)}: keys are texts")
    return record.items()


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


# By a value's type: the field that takes one, and the field that takes a list of them. bool comes
# first, it is an int as well.
_CONFIG_FIELDS: Mapping[type, tuple[str, str]] = {
    bool: ("bool_value", "bool_list"),
    int: ("sint64_value", "sint64_list"),
    float: ("double_value", "double_list"),
    str: ("string_value", "string_list"),
    bytes: ("bytes_value", "bytes_list"),
}
_METRIC_FIELDS: Mapping[type, tuple[str, str]] = {
    kind: _CONFIG_FIELDS[kind] for kind in (int, float)
}


def _fill(message: Any, value: object, fields: Mapping[type, tuple[str, str]], where: str) -> None:
    if isinstance(value, list):
        kinds = {_type_of(item, fields, f"{where}[{i}]") for i, item in enumerate(value)}
        if len(kinds) > 1:
            names = " and ".join(sorted(kind.__name__ for kind in kinds))
            raise TypeError(f"{where} mixes {names}: a list holds values of one type")
        # What an empty list is a list of, nobody can tell.
        [kind] = kinds or {float}
        values = getattr(message, fields[kind][1])
        values.SetInParent()
        values.vals.extend(value)
    else:
        setattr(message, fields[_type_of(value, fields, where)][0], value)


def _type_of(value: object, fields: Mapping[type, tuple[str, str]], where: str) -> type:
    found = next((kind for kind in _CONFIG_FIELDS if isinstance(value, kind)), None)
    if found is None or found not in fields:
        allowed = ", ".join(kind.__name__ for kind in fields)
        raise TypeError(f"{where} is a {_kind(value)}; allowed are {allowed}, and lists of one")
    if found is int and value not in _SINT64:
        raise ValueError(f"{where} is {value}, which does not fit into 64 bits")
    return found


def _values(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: _value(message, f"[{name!r}][{key!r}]") for key, message in record.items()}


def _value(message: Any, where: str) -> Any:
    field = message.WhichOneof("value")
    if field is None:
        raise ValueError(f"the content has no value in {where}")
    value = getattr(message, field)
    return list(value.vals) if field.endswith("_list") else value


def _text(number: int, text: str) -> list[Buffer]:
    return wrap(number, [text.encode()])


def _write_parameters(arrays: Iterable[tuple[str, Any]], name: str) -> list[Buffer]:
    keys: list[Buffer] = []
    values: list[Buffer] = []
    for key, array in arrays:
        keys += _text(_DATA_KEYS, key)
        values += wrap(_DATA_VALUES, _write_array(array, f"parameters[{name!r}][{key!r}]"))
    return [*keys, *values]


def _write_array(array: object, where: str) -> list[Buffer]:
    if isinstance(array, Array):
        head = pb.Array(dtype=array.dtype, shape=array.shape, stype=array.stype)
        data: list[Buffer] = [array.data]
    else:
        # An app that sends no arrays, and a process that only relays, does without NumPy.
        from superlink_trio.wire import npy

        if not npy.is_array(array):
            raise TypeError(f"{where} is a {_kind(array)}, not a numpy.ndarray or Array")
        if array.dtype.kind in "OV":
            raise TypeError(f"{where} is an array of {array.dtype}: only plain values can be sent")
        head = pb.Array(dtype=str(array.dtype), shape=array.shape, stype=_NUMPY)
        data = [*npy.write(array)]
    return [head.SerializeToString(), *wrap(_ARRAY_DATA, data)]


def _read_parameters(entry: memoryview) -> tuple[str, dict[str, npt.NDArray[Any] | Array]]:
    keys, records = find(entry, _MAP_KEY), find(entry, _MAP_VALUE)
    name = str(keys[-1], "utf-8") if keys else ""
    names: list[str] = []
    arrays: list[memoryview] = []
    # A field that occurs twice is merged: for two records that is to join them.
    for record in records:
        names += (str(key, "utf-8") for key in find(record, _DATA_KEYS))
        arrays += find(record, _DATA_VALUES)
    if len(names) != len(arrays):
        raise Malformed(f"parameters[{name!r}] has {len(names)} keys for {len(arrays)} arrays")
    return name, {
        key: _read_array(array, f"parameters[{name!r}][{key!r}]")
        for key, array in zip(names, arrays, strict=True)
    }


def _read_array(raw: memoryview, where: str) -> npt.NDArray[Any] | Array:
    parts, rest = split(raw, _ARRAY_DATA)
    data = parts[-1] if parts else memoryview(b"")
    head = pb.Array.FromString(rest)
    if head.stype != _NUMPY:
        return Array(dtype=head.dtype, shape=tuple(head.shape), stype=head.stype, data=bytes(data))
    from superlink_trio.wire import npy

    try:
        # A copy: views of a message are hardly ever aligned, and could not be changed in place.
        return npy.read(data).copy(order="K")
    except npy.NotNpy as error:
        raise Malformed(f"{where} is no array: {error}") from error
