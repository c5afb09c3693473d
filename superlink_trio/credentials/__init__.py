"""Everything secret, read from files and checked: certificates, keys, tokens."""

from superlink_trio.credentials.allow_list import NodeKeys
from superlink_trio.credentials.calls import Denied
from superlink_trio.credentials.certificates import Certificates, Identity, Sources
from superlink_trio.credentials.control_tokens import ControlTokens
from superlink_trio.credentials.loading import Credentials, load
from superlink_trio.credentials.shared_secret import SharedSecret

__all__ = [
    "Certificates",
    "ControlTokens",
    "Credentials",
    "Denied",
    "Identity",
    "NodeKeys",
    "SharedSecret",
    "Sources",
    "load",
]
