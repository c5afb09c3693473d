from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Node(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message_id", "group_id", "ttl", "message_type", "created_at", "src_task_id", "dst_task_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    SRC_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DST_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SRC_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DST_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    message_id: str
    src_node_id: int
    dst_node_id: int
    reply_to_message_id: str
    group_id: str
    ttl: float
    message_type: str
    created_at: float
    src_task_id: int
    dst_task_id: int
    def __init__(self, run_id: _Optional[int] = ..., message_id: _Optional[str] = ..., src_node_id: _Optional[int] = ..., dst_node_id: _Optional[int] = ..., reply_to_message_id: _Optional[str] = ..., group_id: _Optional[str] = ..., ttl: _Optional[float] = ..., message_type: _Optional[str] = ..., created_at: _Optional[float] = ..., src_task_id: _Optional[int] = ..., dst_task_id: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("metadata", "content", "error")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    metadata: Metadata
    content: bytes
    error: Error
    def __init__(self, metadata: _Optional[_Union[Metadata, _Mapping]] = ..., content: _Optional[bytes] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class ObjectTree(_message.Message):
    __slots__ = ("object_id", "children")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    children: _containers.RepeatedCompositeFieldContainer[ObjectTree]
    def __init__(self, object_id: _Optional[str] = ..., children: _Optional[_Iterable[_Union[ObjectTree, _Mapping]]] = ...) -> None: ...

class Scalar(_message.Message):
    __slots__ = ("double_value", "uint64_value", "sint64_value", "bool_value", "string_value", "bytes_value")
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    UINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    SINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    double_value: float
    uint64_value: int
    sint64_value: int
    bool_value: bool
    string_value: str
    bytes_value: bytes
    def __init__(self, double_value: _Optional[float] = ..., uint64_value: _Optional[int] = ..., sint64_value: _Optional[int] = ..., bool_value: bool = ..., string_value: _Optional[str] = ..., bytes_value: _Optional[bytes] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("run_id", "node_id", "node_config", "state", "run_config", "series_id")
    class NodeConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    class RunConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUN_CONFIG_FIELD_NUMBER: _ClassVar[int]
    SERIES_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    node_id: int
    node_config: _containers.MessageMap[str, Scalar]
    state: bytes
    run_config: _containers.MessageMap[str, Scalar]
    series_id: int
    def __init__(self, run_id: _Optional[int] = ..., node_id: _Optional[int] = ..., node_config: _Optional[_Mapping[str, Scalar]] = ..., state: _Optional[bytes] = ..., run_config: _Optional[_Mapping[str, Scalar]] = ..., series_id: _Optional[int] = ...) -> None: ...

class Fab(_message.Message):
    __slots__ = ("hash_str", "content", "verifications")
    class VerificationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HASH_STR_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    VERIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    hash_str: str
    content: bytes
    verifications: _containers.ScalarMap[str, str]
    def __init__(self, hash_str: _Optional[str] = ..., content: _Optional[bytes] = ..., verifications: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RunStatus(_message.Message):
    __slots__ = ("status", "sub_status", "details")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SUB_STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    status: str
    sub_status: str
    details: str
    def __init__(self, status: _Optional[str] = ..., sub_status: _Optional[str] = ..., details: _Optional[str] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "fab_id", "fab_version", "override_config", "fab_hash", "pending_at", "starting_at", "running_at", "finished_at", "status", "flwr_aid", "federation", "bytes_sent", "bytes_recv", "clientapp_runtime", "primary_task_type", "primary_task_id", "series_id", "account_name")
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
    PENDING_AT_FIELD_NUMBER: _ClassVar[int]
    STARTING_AT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FLWR_AID_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECV_FIELD_NUMBER: _ClassVar[int]
    CLIENTAPP_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SERIES_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_NAME_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    fab_id: str
    fab_version: str
    override_config: _containers.MessageMap[str, Scalar]
    fab_hash: str
    pending_at: str
    starting_at: str
    running_at: str
    finished_at: str
    status: RunStatus
    flwr_aid: str
    federation: str
    bytes_sent: int
    bytes_recv: int
    clientapp_runtime: float
    primary_task_type: str
    primary_task_id: int
    series_id: int
    account_name: str
    def __init__(self, run_id: _Optional[int] = ..., fab_id: _Optional[str] = ..., fab_version: _Optional[str] = ..., override_config: _Optional[_Mapping[str, Scalar]] = ..., fab_hash: _Optional[str] = ..., pending_at: _Optional[str] = ..., starting_at: _Optional[str] = ..., running_at: _Optional[str] = ..., finished_at: _Optional[str] = ..., status: _Optional[_Union[RunStatus, _Mapping]] = ..., flwr_aid: _Optional[str] = ..., federation: _Optional[str] = ..., bytes_sent: _Optional[int] = ..., bytes_recv: _Optional[int] = ..., clientapp_runtime: _Optional[float] = ..., primary_task_type: _Optional[str] = ..., primary_task_id: _Optional[int] = ..., series_id: _Optional[int] = ..., account_name: _Optional[str] = ...) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("node_id", "owner_aid", "owner_name", "status", "registered_at", "last_activated_at", "last_deactivated_at", "unregistered_at", "online_until", "heartbeat_interval", "public_key", "location", "name")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_AID_FIELD_NUMBER: _ClassVar[int]
    OWNER_NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVATED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_DEACTIVATED_AT_FIELD_NUMBER: _ClassVar[int]
    UNREGISTERED_AT_FIELD_NUMBER: _ClassVar[int]
    ONLINE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    owner_aid: str
    owner_name: str
    status: str
    registered_at: str
    last_activated_at: str
    last_deactivated_at: str
    unregistered_at: str
    online_until: float
    heartbeat_interval: float
    public_key: bytes
    location: str
    name: str
    def __init__(self, node_id: _Optional[int] = ..., owner_aid: _Optional[str] = ..., owner_name: _Optional[str] = ..., status: _Optional[str] = ..., registered_at: _Optional[str] = ..., last_activated_at: _Optional[str] = ..., last_deactivated_at: _Optional[str] = ..., unregistered_at: _Optional[str] = ..., online_until: _Optional[float] = ..., heartbeat_interval: _Optional[float] = ..., public_key: _Optional[bytes] = ..., location: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class PushObjectRequest(_message.Message):
    __slots__ = ("node", "run_id", "object_id", "object_content", "session_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_CONTENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    node: Node
    run_id: int
    object_id: str
    object_content: bytes
    session_id: str
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., run_id: _Optional[int] = ..., object_id: _Optional[str] = ..., object_content: _Optional[bytes] = ..., session_id: _Optional[str] = ...) -> None: ...

class PushObjectResponse(_message.Message):
    __slots__ = ("stored",)
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: bool
    def __init__(self, stored: bool = ...) -> None: ...

class PullObjectRequest(_message.Message):
    __slots__ = ("node", "run_id", "object_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    node: Node
    run_id: int
    object_id: str
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., run_id: _Optional[int] = ..., object_id: _Optional[str] = ...) -> None: ...

class PullObjectResponse(_message.Message):
    __slots__ = ("object_found", "object_available", "object_content")
    OBJECT_FOUND_FIELD_NUMBER: _ClassVar[int]
    OBJECT_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_CONTENT_FIELD_NUMBER: _ClassVar[int]
    object_found: bool
    object_available: bool
    object_content: bytes
    def __init__(self, object_found: bool = ..., object_available: bool = ..., object_content: _Optional[bytes] = ...) -> None: ...

class ConfirmMessageReceivedRequest(_message.Message):
    __slots__ = ("node", "run_id", "message_object_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    node: Node
    run_id: int
    message_object_id: str
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., run_id: _Optional[int] = ..., message_object_id: _Optional[str] = ...) -> None: ...

class ConfirmMessageReceivedResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RegisterNodeFleetRequest(_message.Message):
    __slots__ = ("public_key",)
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    def __init__(self, public_key: _Optional[bytes] = ...) -> None: ...

class RegisterNodeFleetResponse(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class ActivateNodeRequest(_message.Message):
    __slots__ = ("public_key", "heartbeat_interval")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    heartbeat_interval: float
    def __init__(self, public_key: _Optional[bytes] = ..., heartbeat_interval: _Optional[float] = ...) -> None: ...

class ActivateNodeResponse(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class DeactivateNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class DeactivateNodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnregisterNodeFleetRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class UnregisterNodeFleetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendNodeHeartbeatRequest(_message.Message):
    __slots__ = ("node", "heartbeat_interval")
    NODE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    node: Node
    heartbeat_interval: float
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., heartbeat_interval: _Optional[float] = ...) -> None: ...

class SendNodeHeartbeatResponse(_message.Message):
    __slots__ = ("success",)
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    success: bool
    def __init__(self, success: bool = ...) -> None: ...

class PullMessagesRequest(_message.Message):
    __slots__ = ("node", "message_ids")
    NODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    message_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., message_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PullMessagesResponse(_message.Message):
    __slots__ = ("messages_list", "message_object_trees")
    MESSAGES_LIST_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_OBJECT_TREES_FIELD_NUMBER: _ClassVar[int]
    messages_list: _containers.RepeatedCompositeFieldContainer[Message]
    message_object_trees: _containers.RepeatedCompositeFieldContainer[ObjectTree]
    def __init__(self, messages_list: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., message_object_trees: _Optional[_Iterable[_Union[ObjectTree, _Mapping]]] = ...) -> None: ...

class PushMessagesRequest(_message.Message):
    __slots__ = ("node", "messages_list", "message_object_trees", "clientapp_runtime_list")
    NODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_LIST_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_OBJECT_TREES_FIELD_NUMBER: _ClassVar[int]
    CLIENTAPP_RUNTIME_LIST_FIELD_NUMBER: _ClassVar[int]
    node: Node
    messages_list: _containers.RepeatedCompositeFieldContainer[Message]
    message_object_trees: _containers.RepeatedCompositeFieldContainer[ObjectTree]
    clientapp_runtime_list: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., messages_list: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., message_object_trees: _Optional[_Iterable[_Union[ObjectTree, _Mapping]]] = ..., clientapp_runtime_list: _Optional[_Iterable[float]] = ...) -> None: ...

class PushMessagesResponse(_message.Message):
    __slots__ = ("results", "objects_to_push", "session_id")
    class ResultsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_TO_PUSH_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.ScalarMap[str, int]
    objects_to_push: _containers.RepeatedScalarFieldContainer[str]
    session_id: str
    def __init__(self, results: _Optional[_Mapping[str, int]] = ..., objects_to_push: _Optional[_Iterable[str]] = ..., session_id: _Optional[str] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("node", "run_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    node: Node
    run_id: int
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., run_id: _Optional[int] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetFabRequest(_message.Message):
    __slots__ = ("node", "hash_str", "run_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    HASH_STR_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    node: Node
    hash_str: str
    run_id: int
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., hash_str: _Optional[str] = ..., run_id: _Optional[int] = ...) -> None: ...

class GetFabResponse(_message.Message):
    __slots__ = ("fab",)
    FAB_FIELD_NUMBER: _ClassVar[int]
    fab: Fab
    def __init__(self, fab: _Optional[_Union[Fab, _Mapping]] = ...) -> None: ...

class PushAppMessagesRequest(_message.Message):
    __slots__ = ("messages_list", "message_object_trees")
    MESSAGES_LIST_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_OBJECT_TREES_FIELD_NUMBER: _ClassVar[int]
    messages_list: _containers.RepeatedCompositeFieldContainer[Message]
    message_object_trees: _containers.RepeatedCompositeFieldContainer[ObjectTree]
    def __init__(self, messages_list: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., message_object_trees: _Optional[_Iterable[_Union[ObjectTree, _Mapping]]] = ...) -> None: ...

class PushAppMessagesResponse(_message.Message):
    __slots__ = ("message_ids", "objects_to_push", "session_id")
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_TO_PUSH_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    message_ids: _containers.RepeatedScalarFieldContainer[str]
    objects_to_push: _containers.RepeatedScalarFieldContainer[str]
    session_id: str
    def __init__(self, message_ids: _Optional[_Iterable[str]] = ..., objects_to_push: _Optional[_Iterable[str]] = ..., session_id: _Optional[str] = ...) -> None: ...

class PullAppMessagesRequest(_message.Message):
    __slots__ = ("message_ids",)
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    message_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, message_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PullAppMessagesResponse(_message.Message):
    __slots__ = ("messages_list", "message_object_trees")
    MESSAGES_LIST_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_OBJECT_TREES_FIELD_NUMBER: _ClassVar[int]
    messages_list: _containers.RepeatedCompositeFieldContainer[Message]
    message_object_trees: _containers.RepeatedCompositeFieldContainer[ObjectTree]
    def __init__(self, messages_list: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., message_object_trees: _Optional[_Iterable[_Union[ObjectTree, _Mapping]]] = ...) -> None: ...

class GetNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeInfo]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeInfo, _Mapping]]] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("status", "sub_status", "details")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SUB_STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    status: str
    sub_status: str
    details: str
    def __init__(self, status: _Optional[str] = ..., sub_status: _Optional[str] = ..., details: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "type", "run_id", "status", "pending_at", "starting_at", "running_at", "finished_at", "fab_hash")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PENDING_AT_FIELD_NUMBER: _ClassVar[int]
    STARTING_AT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    FAB_HASH_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    type: str
    run_id: int
    status: TaskStatus
    pending_at: str
    starting_at: str
    running_at: str
    finished_at: str
    fab_hash: str
    def __init__(self, task_id: _Optional[int] = ..., type: _Optional[str] = ..., run_id: _Optional[int] = ..., status: _Optional[_Union[TaskStatus, _Mapping]] = ..., pending_at: _Optional[str] = ..., starting_at: _Optional[str] = ..., running_at: _Optional[str] = ..., finished_at: _Optional[str] = ..., fab_hash: _Optional[str] = ...) -> None: ...

class AcquireTaskRequest(_message.Message):
    __slots__ = ("supported_task_types",)
    SUPPORTED_TASK_TYPES_FIELD_NUMBER: _ClassVar[int]
    supported_task_types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, supported_task_types: _Optional[_Iterable[str]] = ...) -> None: ...

class AcquireTaskResponse(_message.Message):
    __slots__ = ("task", "token")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    task: Task
    token: str
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class PushLogsRequest(_message.Message):
    __slots__ = ("node", "run_id", "logs")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    run_id: int
    logs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., run_id: _Optional[int] = ..., logs: _Optional[_Iterable[str]] = ...) -> None: ...

class PushLogsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendTaskHeartbeatRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendTaskHeartbeatResponse(_message.Message):
    __slots__ = ("success",)
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    success: bool
    def __init__(self, success: bool = ...) -> None: ...

class PullTaskInputRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SimulationConfig(_message.Message):
    __slots__ = ("num_supernodes", "client_resources_num_cpus", "client_resources_num_gpus", "backend", "verbose", "init_args_num_cpus", "init_args_num_gpus", "init_args_logging_level", "init_args_log_to_driver")
    NUM_SUPERNODES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_RESOURCES_NUM_CPUS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_RESOURCES_NUM_GPUS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    VERBOSE_FIELD_NUMBER: _ClassVar[int]
    INIT_ARGS_NUM_CPUS_FIELD_NUMBER: _ClassVar[int]
    INIT_ARGS_NUM_GPUS_FIELD_NUMBER: _ClassVar[int]
    INIT_ARGS_LOGGING_LEVEL_FIELD_NUMBER: _ClassVar[int]
    INIT_ARGS_LOG_TO_DRIVER_FIELD_NUMBER: _ClassVar[int]
    num_supernodes: int
    client_resources_num_cpus: int
    client_resources_num_gpus: float
    backend: str
    verbose: bool
    init_args_num_cpus: int
    init_args_num_gpus: int
    init_args_logging_level: str
    init_args_log_to_driver: bool
    def __init__(self, num_supernodes: _Optional[int] = ..., client_resources_num_cpus: _Optional[int] = ..., client_resources_num_gpus: _Optional[float] = ..., backend: _Optional[str] = ..., verbose: bool = ..., init_args_num_cpus: _Optional[int] = ..., init_args_num_gpus: _Optional[int] = ..., init_args_logging_level: _Optional[str] = ..., init_args_log_to_driver: bool = ...) -> None: ...

class PullTaskInputResponse(_message.Message):
    __slots__ = ("context", "run", "fab", "federation_config", "task_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    FAB_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    context: Context
    run: Run
    fab: Fab
    federation_config: SimulationConfig
    task_id: int
    def __init__(self, context: _Optional[_Union[Context, _Mapping]] = ..., run: _Optional[_Union[Run, _Mapping]] = ..., fab: _Optional[_Union[Fab, _Mapping]] = ..., federation_config: _Optional[_Union[SimulationConfig, _Mapping]] = ..., task_id: _Optional[int] = ...) -> None: ...

class PushTaskOutputRequest(_message.Message):
    __slots__ = ("context", "sub_status", "details", "clientapp_runtime")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SUB_STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    CLIENTAPP_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    context: Context
    sub_status: str
    details: str
    clientapp_runtime: float
    def __init__(self, context: _Optional[_Union[Context, _Mapping]] = ..., sub_status: _Optional[str] = ..., details: _Optional[str] = ..., clientapp_runtime: _Optional[float] = ...) -> None: ...

class PushTaskOutputResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartRunRequest(_message.Message):
    __slots__ = ("fab", "override_config", "override_federation_config", "app_spec", "federation", "series_id", "connector_refs", "user_prompt", "connector_ids")
    class OverrideConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    FAB_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FEDERATION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    APP_SPEC_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SERIES_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_REFS_FIELD_NUMBER: _ClassVar[int]
    USER_PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_IDS_FIELD_NUMBER: _ClassVar[int]
    fab: Fab
    override_config: _containers.MessageMap[str, Scalar]
    override_federation_config: SimulationConfig
    app_spec: str
    federation: str
    series_id: int
    connector_refs: _containers.RepeatedScalarFieldContainer[str]
    user_prompt: str
    connector_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, fab: _Optional[_Union[Fab, _Mapping]] = ..., override_config: _Optional[_Mapping[str, Scalar]] = ..., override_federation_config: _Optional[_Union[SimulationConfig, _Mapping]] = ..., app_spec: _Optional[str] = ..., federation: _Optional[str] = ..., series_id: _Optional[int] = ..., connector_refs: _Optional[_Iterable[str]] = ..., user_prompt: _Optional[str] = ..., connector_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class StartRunResponse(_message.Message):
    __slots__ = ("run_id", "note", "series_id", "federation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    SERIES_ID_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    note: str
    series_id: int
    federation: str
    def __init__(self, run_id: _Optional[int] = ..., note: _Optional[str] = ..., series_id: _Optional[int] = ..., federation: _Optional[str] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("run_id", "after_timestamp")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    after_timestamp: float
    def __init__(self, run_id: _Optional[int] = ..., after_timestamp: _Optional[float] = ...) -> None: ...

class StreamLogsResponse(_message.Message):
    __slots__ = ("log_output", "latest_timestamp")
    LOG_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LATEST_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    log_output: str
    latest_timestamp: float
    def __init__(self, log_output: _Optional[str] = ..., latest_timestamp: _Optional[float] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("run_id", "limit", "skip")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    limit: int
    skip: int
    def __init__(self, run_id: _Optional[int] = ..., limit: _Optional[int] = ..., skip: _Optional[int] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("run_dict", "now")
    class RunDictEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Run
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...
    RUN_DICT_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    run_dict: _containers.MessageMap[int, Run]
    now: str
    def __init__(self, run_dict: _Optional[_Mapping[int, Run]] = ..., now: _Optional[str] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class StopRunResponse(_message.Message):
    __slots__ = ("success",)
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    success: bool
    def __init__(self, success: bool = ...) -> None: ...

class RegisterNodeRequest(_message.Message):
    __slots__ = ("public_key", "location", "name")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    location: str
    name: str
    def __init__(self, public_key: _Optional[bytes] = ..., location: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class RegisterNodeResponse(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class UnregisterNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class UnregisterNodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes_info", "now")
    NODES_INFO_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    nodes_info: _containers.RepeatedCompositeFieldContainer[NodeInfo]
    now: str
    def __init__(self, nodes_info: _Optional[_Iterable[_Union[NodeInfo, _Mapping]]] = ..., now: _Optional[str] = ...) -> None: ...

class Account(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("account", "role")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    account: Account
    role: str
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ..., role: _Optional[str] = ...) -> None: ...

class Federation(_message.Message):
    __slots__ = ("name", "nodes", "runs", "description", "members", "archived", "simulation", "config")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    name: str
    nodes: _containers.RepeatedCompositeFieldContainer[NodeInfo]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    description: str
    members: _containers.RepeatedCompositeFieldContainer[Member]
    archived: bool
    simulation: bool
    config: SimulationConfig
    def __init__(self, name: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[NodeInfo, _Mapping]]] = ..., runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., description: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., archived: bool = ..., simulation: bool = ..., config: _Optional[_Union[SimulationConfig, _Mapping]] = ...) -> None: ...

class ListFederationsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListFederationsResponse(_message.Message):
    __slots__ = ("federations",)
    FEDERATIONS_FIELD_NUMBER: _ClassVar[int]
    federations: _containers.RepeatedCompositeFieldContainer[Federation]
    def __init__(self, federations: _Optional[_Iterable[_Union[Federation, _Mapping]]] = ...) -> None: ...

class ShowFederationRequest(_message.Message):
    __slots__ = ("federation_name",)
    FEDERATION_NAME_FIELD_NUMBER: _ClassVar[int]
    federation_name: str
    def __init__(self, federation_name: _Optional[str] = ...) -> None: ...

class ShowFederationResponse(_message.Message):
    __slots__ = ("federation", "now")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    federation: Federation
    now: str
    def __init__(self, federation: _Optional[_Union[Federation, _Mapping]] = ..., now: _Optional[str] = ...) -> None: ...

class ConfigureSimulationFederationRequest(_message.Message):
    __slots__ = ("federation_name", "config")
    FEDERATION_NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    federation_name: str
    config: SimulationConfig
    def __init__(self, federation_name: _Optional[str] = ..., config: _Optional[_Union[SimulationConfig, _Mapping]] = ...) -> None: ...

class ConfigureSimulationFederationResponse(_message.Message):
    __slots__ = ("federation_name",)
    FEDERATION_NAME_FIELD_NUMBER: _ClassVar[int]
    federation_name: str
    def __init__(self, federation_name: _Optional[str] = ...) -> None: ...

class GetLoginDetailsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLoginDetailsResponse(_message.Message):
    __slots__ = ("authn_type", "device_code", "verification_uri_complete", "expires_in", "interval")
    AUTHN_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CODE_FIELD_NUMBER: _ClassVar[int]
    VERIFICATION_URI_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    authn_type: str
    device_code: str
    verification_uri_complete: str
    expires_in: int
    interval: int
    def __init__(self, authn_type: _Optional[str] = ..., device_code: _Optional[str] = ..., verification_uri_complete: _Optional[str] = ..., expires_in: _Optional[int] = ..., interval: _Optional[int] = ...) -> None: ...
