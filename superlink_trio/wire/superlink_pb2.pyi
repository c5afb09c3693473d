from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Node(_message.Message):
    __slots__ = ("node_id", "anonymous")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ANONYMOUS_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    anonymous: bool
    def __init__(self, node_id: _Optional[int] = ..., anonymous: bool = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

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
    producer: Node
    consumer: Node
    created_at: float
    delivered_at: str
    pushed_at: float
    ttl: float
    ancestry: _containers.RepeatedScalarFieldContainer[str]
    task_type: str
    recordset: bytes
    error: Error
    def __init__(self, producer: _Optional[_Union[Node, _Mapping]] = ..., consumer: _Optional[_Union[Node, _Mapping]] = ..., created_at: _Optional[float] = ..., delivered_at: _Optional[str] = ..., pushed_at: _Optional[float] = ..., ttl: _Optional[float] = ..., ancestry: _Optional[_Iterable[str]] = ..., task_type: _Optional[str] = ..., recordset: _Optional[bytes] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class TaskIns(_message.Message):
    __slots__ = ("task_id", "group_id", "run_id", "task")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    group_id: str
    run_id: int
    task: Task
    def __init__(self, task_id: _Optional[str] = ..., group_id: _Optional[str] = ..., run_id: _Optional[int] = ..., task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class TaskRes(_message.Message):
    __slots__ = ("task_id", "group_id", "run_id", "task")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    group_id: str
    run_id: int
    task: Task
    def __init__(self, task_id: _Optional[str] = ..., group_id: _Optional[str] = ..., run_id: _Optional[int] = ..., task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class Scalar(_message.Message):
    __slots__ = ("double_value", "sint64_value", "bool_value", "string_value", "bytes_value")
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    SINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    double_value: float
    sint64_value: int
    bool_value: bool
    string_value: str
    bytes_value: bytes
    def __init__(self, double_value: _Optional[float] = ..., sint64_value: _Optional[int] = ..., bool_value: bool = ..., string_value: _Optional[str] = ..., bytes_value: _Optional[bytes] = ...) -> None: ...

class Fab(_message.Message):
    __slots__ = ("hash_str", "content")
    HASH_STR_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    hash_str: str
    content: bytes
    def __init__(self, hash_str: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "fab_id", "fab_version", "override_config", "fab_hash")
    class OverrideConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FAB_ID_FIELD_NUMBER: _ClassVar[int]
    FAB_VERSION_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    FAB_HASH_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    fab_id: str
    fab_version: str
    override_config: _containers.MessageMap[str, Scalar]
    fab_hash: str
    def __init__(self, run_id: _Optional[int] = ..., fab_id: _Optional[str] = ..., fab_version: _Optional[str] = ..., override_config: _Optional[_Mapping[str, Scalar]] = ..., fab_hash: _Optional[str] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetFabRequest(_message.Message):
    __slots__ = ("hash_str",)
    HASH_STR_FIELD_NUMBER: _ClassVar[int]
    hash_str: str
    def __init__(self, hash_str: _Optional[str] = ...) -> None: ...

class GetFabResponse(_message.Message):
    __slots__ = ("fab",)
    FAB_FIELD_NUMBER: _ClassVar[int]
    fab: Fab
    def __init__(self, fab: _Optional[_Union[Fab, _Mapping]] = ...) -> None: ...

class CreateRunRequest(_message.Message):
    __slots__ = ("fab_id", "fab_version", "override_config", "fab")
    class OverrideConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    FAB_ID_FIELD_NUMBER: _ClassVar[int]
    FAB_VERSION_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    FAB_FIELD_NUMBER: _ClassVar[int]
    fab_id: str
    fab_version: str
    override_config: _containers.MessageMap[str, Scalar]
    fab: Fab
    def __init__(self, fab_id: _Optional[str] = ..., fab_version: _Optional[str] = ..., override_config: _Optional[_Mapping[str, Scalar]] = ..., fab: _Optional[_Union[Fab, _Mapping]] = ...) -> None: ...

class CreateRunResponse(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class GetNodesRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class GetNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class PushTaskInsRequest(_message.Message):
    __slots__ = ("task_ins_list",)
    TASK_INS_LIST_FIELD_NUMBER: _ClassVar[int]
    task_ins_list: _containers.RepeatedCompositeFieldContainer[TaskIns]
    def __init__(self, task_ins_list: _Optional[_Iterable[_Union[TaskIns, _Mapping]]] = ...) -> None: ...

class PushTaskInsResponse(_message.Message):
    __slots__ = ("task_ids",)
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PullTaskResRequest(_message.Message):
    __slots__ = ("node", "task_ids")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PullTaskResResponse(_message.Message):
    __slots__ = ("task_res_list",)
    TASK_RES_LIST_FIELD_NUMBER: _ClassVar[int]
    task_res_list: _containers.RepeatedCompositeFieldContainer[TaskRes]
    def __init__(self, task_res_list: _Optional[_Iterable[_Union[TaskRes, _Mapping]]] = ...) -> None: ...

class CreateNodeRequest(_message.Message):
    __slots__ = ("ping_interval",)
    PING_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    ping_interval: float
    def __init__(self, ping_interval: _Optional[float] = ...) -> None: ...

class CreateNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class DeleteNodeRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class DeleteNodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PingRequest(_message.Message):
    __slots__ = ("node", "ping_interval")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PING_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    node: Node
    ping_interval: float
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., ping_interval: _Optional[float] = ...) -> None: ...

class PingResponse(_message.Message):
    __slots__ = ("success",)
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    success: bool
    def __init__(self, success: bool = ...) -> None: ...

class Reconnect(_message.Message):
    __slots__ = ("reconnect",)
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    reconnect: int
    def __init__(self, reconnect: _Optional[int] = ...) -> None: ...

class PullTaskInsRequest(_message.Message):
    __slots__ = ("node", "task_ids")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PullTaskInsResponse(_message.Message):
    __slots__ = ("reconnect", "task_ins_list")
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    TASK_INS_LIST_FIELD_NUMBER: _ClassVar[int]
    reconnect: Reconnect
    task_ins_list: _containers.RepeatedCompositeFieldContainer[TaskIns]
    def __init__(self, reconnect: _Optional[_Union[Reconnect, _Mapping]] = ..., task_ins_list: _Optional[_Iterable[_Union[TaskIns, _Mapping]]] = ...) -> None: ...

class PushTaskResRequest(_message.Message):
    __slots__ = ("task_res_list",)
    TASK_RES_LIST_FIELD_NUMBER: _ClassVar[int]
    task_res_list: _containers.RepeatedCompositeFieldContainer[TaskRes]
    def __init__(self, task_res_list: _Optional[_Iterable[_Union[TaskRes, _Mapping]]] = ...) -> None: ...

class PushTaskResResponse(_message.Message):
    __slots__ = ("reconnect", "results")
    class ResultsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    reconnect: Reconnect
    results: _containers.ScalarMap[str, int]
    def __init__(self, reconnect: _Optional[_Union[Reconnect, _Mapping]] = ..., results: _Optional[_Mapping[str, int]] = ...) -> None: ...

class MessageContainer(_message.Message):
    __slots__ = ("metadata", "grpc_message_name", "grpc_message_content")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METADATA_FIELD_NUMBER: _ClassVar[int]
    GRPC_MESSAGE_NAME_FIELD_NUMBER: _ClassVar[int]
    GRPC_MESSAGE_CONTENT_FIELD_NUMBER: _ClassVar[int]
    metadata: _containers.ScalarMap[str, str]
    grpc_message_name: str
    grpc_message_content: bytes
    def __init__(self, metadata: _Optional[_Mapping[str, str]] = ..., grpc_message_name: _Optional[str] = ..., grpc_message_content: _Optional[bytes] = ...) -> None: ...
