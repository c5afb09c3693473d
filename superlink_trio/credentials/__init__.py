"""Everything secret: certificates and keys, read from files, checked, and read again on request."""

from superlink_trio.credentials.allow_list import Denied, NodeKeys
from superlink_trio.credentials.certificates import Certificates, Identity, Sources
from superlink_trio.credentials.loading import Credentials, load
from superlink_trio.credentials.shared_secret import SharedSecret

__all__ = [
    "Certificates",
    "Credentials",
    "Denied",
    "Identity",
    "NodeKeys",
    "SharedSecret",
    "Sources",
    "load",
]
