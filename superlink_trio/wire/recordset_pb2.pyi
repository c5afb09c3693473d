from superlink_trio.wire import superlink_pb2 as _superlink_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DoubleList(_message.Message):
    __slots__ = ("vals",)
    VALS_FIELD_NUMBER: _ClassVar[int]
    vals: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, vals: _Optional[_Iterable[float]] = ...) -> None: ...

class Sint64List(_message.Message):
    __slots__ = ("vals",)
    VALS_FIELD_NUMBER: _ClassVar[int]
    vals: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, vals: _Optional[_Iterable[int]] = ...) -> None: ...

class BoolList(_message.Message):
    __slots__ = ("vals",)
    VALS_FIELD_NUMBER: _ClassVar[int]
    vals: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, vals: _Optional[_Iterable[bool]] = ...) -> None: ...

class StringList(_message.Message):
    __slots__ = ("vals",)
    VALS_FIELD_NUMBER: _ClassVar[int]
    vals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, vals: _Optional[_Iterable[str]] = ...) -> None: ...

class BytesList(_message.Message):
    __slots__ = ("vals",)
    VALS_FIELD_NUMBER: _ClassVar[int]
    vals: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vals: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "stype", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    stype: str
    data: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., stype: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class ParametersRecord(_message.Message):
    __slots__ = ("data_keys", "data_values")
    DATA_KEYS_FIELD_NUMBER: _ClassVar[int]
    DATA_VALUES_FIELD_NUMBER: _ClassVar[int]
    data_keys: _containers.RepeatedScalarFieldContainer[str]
    data_values: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, data_keys: _Optional[_Iterable[str]] = ..., data_values: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class MetricsRecordValue(_message.Message):
    __slots__ = ("double_value", "sint64_value", "double_list", "sint64_list")
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    SINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_LIST_FIELD_NUMBER: _ClassVar[int]
    SINT64_LIST_FIELD_NUMBER: _ClassVar[int]
    double_value: float
    sint64_value: int
    double_list: DoubleList
    sint64_list: Sint64List
    def __init__(self, double_value: _Optional[float] = ..., sint64_value: _Optional[int] = ..., double_list: _Optional[_Union[DoubleList, _Mapping]] = ..., sint64_list: _Optional[_Union[Sint64List, _Mapping]] = ...) -> None: ...

class MetricsRecord(_message.Message):
    __slots__ = ("data",)
    class DataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: MetricsRecordValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[MetricsRecordValue, _Mapping]] = ...) -> None: ...
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: _containers.MessageMap[str, MetricsRecordValue]
    def __init__(self, data: _Optional[_Mapping[str, MetricsRecordValue]] = ...) -> None: ...

class ConfigsRecordValue(_message.Message):
    __slots__ = ("double_value", "sint64_value", "bool_value", "string_value", "bytes_value", "double_list", "sint64_list", "bool_list", "string_list", "bytes_list")
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    SINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_LIST_FIELD_NUMBER: _ClassVar[int]
    SINT64_LIST_FIELD_NUMBER: _ClassVar[int]
    BOOL_LIST_FIELD_NUMBER: _ClassVar[int]
    STRING_LIST_FIELD_NUMBER: _ClassVar[int]
    BYTES_LIST_FIELD_NUMBER: _ClassVar[int]
    double_value: float
    sint64_value: int
    bool_value: bool
    string_value: str
    bytes_value: bytes
    double_list: DoubleList
    sint64_list: Sint64List
    bool_list: BoolList
    string_list: StringList
    bytes_list: BytesList
    def __init__(self, double_value: _Optional[float] = ..., sint64_value: _Optional[int] = ..., bool_value: bool = ..., string_value: _Optional[str] = ..., bytes_value: _Optional[bytes] = ..., double_list: _Optional[_Union[DoubleList, _Mapping]] = ..., sint64_list: _Optional[_Union[Sint64List, _Mapping]] = ..., bool_list: _Optional[_Union[BoolList, _Mapping]] = ..., string_list: _Optional[_Union[StringList, _Mapping]] = ..., bytes_list: _Optional[_Union[BytesList, _Mapping]] = ...) -> None: ...

class ConfigsRecord(_message.Message):
    __slots__ = ("data",)
    class DataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ConfigsRecordValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ConfigsRecordValue, _Mapping]] = ...) -> None: ...
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: _containers.MessageMap[str, ConfigsRecordValue]
    def __init__(self, data: _Optional[_Mapping[str, ConfigsRecordValue]] = ...) -> None: ...

class RecordSet(_message.Message):
    __slots__ = ("parameters", "metrics", "configs")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParametersRecord
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParametersRecord, _Mapping]] = ...) -> None: ...
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: MetricsRecord
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[MetricsRecord, _Mapping]] = ...) -> None: ...
    class ConfigsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ConfigsRecord
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ConfigsRecord, _Mapping]] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.MessageMap[str, ParametersRecord]
    metrics: _containers.MessageMap[str, MetricsRecord]
    configs: _containers.MessageMap[str, ConfigsRecord]
    def __init__(self, parameters: _Optional[_Mapping[str, ParametersRecord]] = ..., metrics: _Optional[_Mapping[str, MetricsRecord]] = ..., configs: _Optional[_Mapping[str, ConfigsRecord]] = ...) -> None: ...

class WholePushTaskResRequest(_message.Message):
    __slots__ = ("task_res_list",)
    class Task(_message.Message):
        __slots__ = ("producer", "consumer", "created_at", "delivered_at", "pushed_at", "ttl", "ancestry", "task_type", "recordset", "error")
        PRODUCER_FIELD_NUMBER: _ClassVar[int]
        CONSUMER_FIELD_NUMBER: _ClassVar[int]
        CREATED_AT_FIELD_NUMBER: _ClassVar[int]
        DELIVERED_AT_FIELD_NUMBER: _ClassVar[int]
        PUSHED_AT_FIELD_NUMBER: _ClassVar[int]
        TTL_FIELD_NUMBER: _ClassVar[int]
        ANCESTRY_FIELD_NUMBER: _ClassVar[int]
        TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
        RECORDSET_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        producer: _superlink_pb2.Node
        consumer: _superlink_pb2.Node
        created_at: float
        delivered_at: str
        pushed_at: float
        ttl: float
        ancestry: _containers.RepeatedScalarFieldContainer[str]
        task_type: str
        recordset: RecordSet
        error: _superlink_pb2.Error
        def __init__(self, producer: _Optional[_Union[_superlink_pb2.Node, _Mapping]] = ..., consumer: _Optional[_Union[_superlink_pb2.Node, _Mapping]] = ..., created_at: _Optional[float] = ..., delivered_at: _Optional[str] = ..., pushed_at: _Optional[float] = ..., ttl: _Optional[float] = ..., ancestry: _Optional[_Iterable[str]] = ..., task_type: _Optional[str] = ..., recordset: _Optional[_Union[RecordSet, _Mapping]] = ..., error: _Optional[_Union[_superlink_pb2.Error, _Mapping]] = ...) -> None: ...
    class TaskRes(_message.Message):
        __slots__ = ("task_id", "group_id", "run_id", "task")
        TASK_ID_FIELD_NUMBER: _ClassVar[int]
        GROUP_ID_FIELD_NUMBER: _ClassVar[int]
        RUN_ID_FIELD_NUMBER: _ClassVar[int]
        TASK_FIELD_NUMBER: _ClassVar[int]
        task_id: str
        group_id: str
        run_id: int
        task: WholePushTaskResRequest.Task
        def __init__(self, task_id: _Optional[str] = ..., group_id: _Optional[str] = ..., run_id: _Optional[int] = ..., task: _Optional[_Union[WholePushTaskResRequest.Task, _Mapping]] = ...) -> None: ...
    TASK_RES_LIST_FIELD_NUMBER: _ClassVar[int]
    task_res_list: _containers.RepeatedCompositeFieldContainer[WholePushTaskResRequest.TaskRes]
    def __init__(self, task_res_list: _Optional[_Iterable[_Union[WholePushTaskResRequest.TaskRes, _Mapping]]] = ...) -> None: ...
