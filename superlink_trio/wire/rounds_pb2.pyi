from superlink_trio.wire import superlink_pb2 as _superlink_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Parameters(_message.Message):
    __slots__ = ("tensors", "tensor_type")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedScalarFieldContainer[bytes]
    tensor_type: str
    def __init__(self, tensors: _Optional[_Iterable[bytes]] = ..., tensor_type: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OK: _ClassVar[Status.Code]
        GET_PROPERTIES_NOT_IMPLEMENTED: _ClassVar[Status.Code]
        GET_PARAMETERS_NOT_IMPLEMENTED: _ClassVar[Status.Code]
        FIT_NOT_IMPLEMENTED: _ClassVar[Status.Code]
        EVALUATE_NOT_IMPLEMENTED: _ClassVar[Status.Code]
    OK: Status.Code
    GET_PROPERTIES_NOT_IMPLEMENTED: Status.Code
    GET_PARAMETERS_NOT_IMPLEMENTED: Status.Code
    FIT_NOT_IMPLEMENTED: Status.Code
    EVALUATE_NOT_IMPLEMENTED: Status.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: Status.Code
    message: str
    def __init__(self, code: _Optional[_Union[Status.Code, str]] = ..., message: _Optional[str] = ...) -> None: ...

class ReconnectIns(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    def __init__(self, seconds: _Optional[int] = ...) -> None: ...

class GetPropertiesIns(_message.Message):
    __slots__ = ("config",)
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _superlink_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_superlink_pb2.Scalar, _Mapping]] = ...) -> None: ...
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _containers.MessageMap[str, _superlink_pb2.Scalar]
    def __init__(self, config: _Optional[_Mapping[str, _superlink_pb2.Scalar]] = ...) -> None: ...

class GetParametersIns(_message.Message):
    __slots__ = ("config",)
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _superlink_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_superlink_pb2.Scalar, _Mapping]] = ...) -> None: ...
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _containers.MessageMap[str, _superlink_pb2.Scalar]
    def __init__(self, config: _Optional[_Mapping[str, _superlink_pb2.Scalar]] = ...) -> None: ...

class FitIns(_message.Message):
    __slots__ = ("parameters", "config")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _superlink_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_superlink_pb2.Scalar, _Mapping]] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    parameters: bytes
    config: _containers.MessageMap[str, _superlink_pb2.Scalar]
    def __init__(self, parameters: _Optional[bytes] = ..., config: _Optional[_Mapping[str, _superlink_pb2.Scalar]] = ...) -> None: ...

class EvaluateIns(_message.Message):
    __slots__ = ("parameters", "config")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _superlink_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_superlink_pb2.Scalar, _Mapping]] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    parameters: bytes
    config: _containers.MessageMap[str, _superlink_pb2.Scalar]
    def __init__(self, parameters: _Optional[bytes] = ..., config: _Optional[_Mapping[str, _superlink_pb2.Scalar]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("reconnect_ins", "get_properties_ins", "get_parameters_ins", "fit_ins", "evaluate_ins")
    RECONNECT_INS_FIELD_NUMBER: _ClassVar[int]
    GET_PROPERTIES_INS_FIELD_NUMBER: _ClassVar[int]
    GET_PARAMETERS_INS_FIELD_NUMBER: _ClassVar[int]
    FIT_INS_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_INS_FIELD_NUMBER: _ClassVar[int]
    reconnect_ins: ReconnectIns
    get_properties_ins: GetPropertiesIns
    get_parameters_ins: GetParametersIns
    fit_ins: FitIns
    evaluate_ins: EvaluateIns
    def __init__(self, reconnect_ins: _Optional[_Union[ReconnectIns, _Mapping]] = ..., get_properties_ins: _Optional[_Union[GetPropertiesIns, _Mapping]] = ..., get_parameters_ins: _Optional[_Union[GetParametersIns, _Mapping]] = ..., fit_ins: _Optional[_Union[FitIns, _Mapping]] = ..., evaluate_ins: _Optional[_Union[EvaluateIns, _Mapping]] = ...) -> None: ...

class DisconnectRes(_message.Message):
    __slots__ = ("reason",)
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[DisconnectRes.Reason]
        RECONNECT: _ClassVar[DisconnectRes.Reason]
        POWER_DISCONNECTED: _ClassVar[DisconnectRes.Reason]
        WIFI_UNAVAILABLE: _ClassVar[DisconnectRes.Reason]
        ACK: _ClassVar[DisconnectRes.Reason]
    UNKNOWN: DisconnectRes.Reason
    RECONNECT: DisconnectRes.Reason
    POWER_DISCONNECTED: DisconnectRes.Reason
    WIFI_UNAVAILABLE: DisconnectRes.Reason
    ACK: DisconnectRes.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: DisconnectRes.Reason
    def __init__(self, reason: _Optional[_Union[DisconnectRes.Reason, str]] = ...) -> None: ...

class GetPropertiesRes(_message.Message):
    __slots__ = ("status", "properties")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _superlink_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_superlink_pb2.Scalar, _Mapping]] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    status: Status
    properties: _containers.MessageMap[str, _superlink_pb2.Scalar]
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ..., properties: _Optional[_Mapping[str, _superlink_pb2.Scalar]] = ...) -> None: ...

class GetParametersRes(_message.Message):
    __slots__ = ("status", "parameters")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    parameters: bytes
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ..., parameters: _Optional[bytes] = ...) -> None: ...

class FitRes(_message.Message):
    __slots__ = ("status", "parameters", "num_examples", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _superlink_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_superlink_pb2.Scalar, _Mapping]] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    parameters: bytes
    num_examples: int
    metrics: _containers.MessageMap[str, _superlink_pb2.Scalar]
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ..., parameters: _Optional[bytes] = ..., num_examples: _Optional[int] = ..., metrics: _Optional[_Mapping[str, _superlink_pb2.Scalar]] = ...) -> None: ...

class EvaluateRes(_message.Message):
    __slots__ = ("status", "loss", "num_examples", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _superlink_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_superlink_pb2.Scalar, _Mapping]] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    loss: float
    num_examples: int
    metrics: _containers.MessageMap[str, _superlink_pb2.Scalar]
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ..., loss: _Optional[float] = ..., num_examples: _Optional[int] = ..., metrics: _Optional[_Mapping[str, _superlink_pb2.Scalar]] = ...) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("disconnect_res", "get_properties_res", "get_parameters_res", "fit_res", "evaluate_res")
    DISCONNECT_RES_FIELD_NUMBER: _ClassVar[int]
    GET_PROPERTIES_RES_FIELD_NUMBER: _ClassVar[int]
    GET_PARAMETERS_RES_FIELD_NUMBER: _ClassVar[int]
    FIT_RES_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_RES_FIELD_NUMBER: _ClassVar[int]
    disconnect_res: DisconnectRes
    get_properties_res: GetPropertiesRes
    get_parameters_res: GetParametersRes
    fit_res: FitRes
    evaluate_res: EvaluateRes
    def __init__(self, disconnect_res: _Optional[_Union[DisconnectRes, _Mapping]] = ..., get_properties_res: _Optional[_Union[GetPropertiesRes, _Mapping]] = ..., get_parameters_res: _Optional[_Union[GetParametersRes, _Mapping]] = ..., fit_res: _Optional[_Union[FitRes, _Mapping]] = ..., evaluate_res: _Optional[_Union[EvaluateRes, _Mapping]] = ...) -> None: ...
