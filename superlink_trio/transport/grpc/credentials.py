"""TLS for gRPC servers, with certificates that can be exchanged while they serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import grpc

if TYPE_CHECKING:
    from superlink_trio.credentials.certificates import Certificates, Identity

# Seconds. Between asking for a configuration and making use of it grpc does next to nothing.
_SETTLES_IN = 0.02


MakeCredentials: TypeAlias = Callable[[], grpc.ServerCredentials]
"""Makes the credentials of one port. Each port wants its own: grpc asks those that it has used once
for what is new, and where nothing is, the second port has no certificate."""


def server_credentials(
    certificates: Certificates,
    *,
    clients_need_certificates: bool = False,
    began: Callable[[], None] = lambda: None,
) -> MakeCredentials:
    """Give what makes credentials whose certificate can be exchanged.

    Each new connection is served with what `certificates` holds by then; connections that are
    open are left alone. With `clients_need_certificates` only those are let in that present a
    certificate signed by `client_ca`. `began` is called whenever a connection begins, whatever
    becomes of it, in a thread of grpc's.
    """

    def make() -> grpc.ServerCredentials:
        exchange = _Exchange(certificates, clients_need_certificates, began)
        return grpc.dynamic_ssl_server_credentials(
            exchange.initial,
            exchange.fetch,  # type: ignore[arg-type]  # None is grpc's word for "nothing new"
            clients_need_certificates,
        )

    return make


def fixed_credentials(certificate: bytes, key: bytes) -> MakeCredentials:
    """Give what makes credentials whose certificate and key (PEM) never change."""
    return partial(grpc.ssl_server_credentials, [(key, certificate)])


class _Exchange:
    """Tells grpc, once a connection and in grpc's own threads, whether there is something new.

    grpc (1.85) puts a new configuration in the place of the old without a lock: a connection that
    begins at that moment reads freed memory, and the process is gone. So grpc is told that nothing
    has changed wherever that is true, and a change is made while no other connection is between
    its question and its handshake: those that begin meanwhile wait here for a moment.
    """

    def __init__(
        self,
        certificates: Certificates,
        clients_need_certificates: bool,
        began: Callable[[], None],
    ) -> None:
        self._began = began
        self._certificates = certificates
        self._clients_need_certificates = clients_need_certificates
        self._lock = threading.Lock()
        self._told = certificates.identity
        self._settled_at = 0.0
        self.initial = self._configuration(self._told)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Give what is new since the last call, None for nothing."""
        self._began()
        with self._lock:
            if (wait := self._settled_at - time.monotonic()) > 0:
                time.sleep(wait)
            identity = self._certificates.identity
            if identity is self._told:
                return None
            time.sleep(_SETTLES_IN)
            self._told = identity
            self._settled_at = time.monotonic() + _SETTLES_IN
            return self._configuration(identity)

    def _configuration(self, identity: Identity) -> grpc.ServerCertificateConfiguration:
        client_ca = identity.client_ca if self._clients_need_certificates else None
        return grpc.ssl_server_certificate_configuration(
            [(identity.key, identity.certificate)], root_certificates=client_ca
        )
