"""Everything secret that a SuperLink reads from files, at its start and on request."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs
import trio

from superlink_trio.config import Apis, ConfigError, ConfigErrors, Files, SuperLinkConfig
from superlink_trio.credentials.allow_list import NodeKeys
from superlink_trio.credentials.certificates import Certificates, Sources
from superlink_trio.credentials.control_tokens import ControlTokens, read_tokens
from superlink_trio.credentials.files import Faults
from superlink_trio.credentials.node_keys import KeySources, read_keys, read_node_keys
from superlink_trio.credentials.shared_secret import SharedSecret

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Credentials:
    """What the servers present, and who may call them. None: nothing of the kind is needed."""

    grpc: Certificates | None
    rest: Certificates | None
    """The same as `grpc` where REST has no files of its own."""
    nodes: NodeKeys | None
    superexecs: SharedSecret | None = None
    control: ControlTokens | None = None
    """None: who steers shows no token."""
    _reloading: trio.Lock = attrs.field(factory=trio.Lock, init=False, repr=False)

    @property
    def certificates(self) -> Mapping[str, Certificates]:
        """Each set once, by whom it is for."""
        sets = {"gRPC": self.grpc, "REST": None if self.rest is self.grpc else self.rest}
        return {name: found for name, found in sets.items() if found is not None}

    async def reload(self) -> None:
        """Read certificates, the list of nodes' keys, tokens and the secret of SuperExecs again.

        What is sound is used from now on; what is not leaves things as they are, and the log says
        why. Open connections stay open, but the calls of a key that is listed no more end at once.
        """
        async with self._reloading:
            secrets = (self.nodes, self.superexecs, self.control)
            if not self.certificates and all(each is None for each in secrets):
                _log.info("There are no keys or certificates to read again")
            for name, certificates in self.certificates.items():
                await _reload_certificates(name, certificates)
            if self.nodes is not None:
                await _reload_nodes(self.nodes)
            if self.superexecs is not None:
                await _reload_secret(self.superexecs)
            if self.control is not None:
                await _reload_tokens(self.control)


async def _reload_certificates(name: str, certificates: Certificates) -> None:
    with _logged(f"The certificates for {name} stay as they were"):
        await trio.to_thread.run_sync(certificates.reload)
        _log.info("New connections get the certificates for %s that were read just now", name)
        certificates.log_expiry()


async def _reload_nodes(nodes: NodeKeys) -> None:
    with _logged("The list of nodes' keys stays as it was"):
        nodes.replace(await trio.to_thread.run_sync(read_node_keys, nodes.source))


async def _reload_secret(superexecs: SharedSecret) -> None:
    with _logged("The secret of SuperExecs stays as it was"):
        await trio.to_thread.run_sync(superexecs.reload)
        _log.info("SuperExecs need the secret now that was read just now")


async def _reload_tokens(tokens: ControlTokens) -> None:
    with _logged("The tokens for flwr stay as they were"):
        tokens.replace(await trio.to_thread.run_sync(read_tokens, tokens.source))


@contextmanager
def _logged(outcome: str) -> Iterator[None]:
    """Log what ends the block, whatever it is: files that are bad are no reason to end a server."""
    faults = Faults()
    try:
        with faults.collect():
            yield
    except Exception:
        _log.exception("%s: reading the files failed", outcome)
    for fault in faults:
        _log.error("%s: %s", outcome, fault)


def load(config: SuperLinkConfig, apis: Apis) -> Credentials:
    """Read and check all that these APIs need.

    Raises ConfigErrors with a part for everything that is wrong with any file.
    """
    errors: list[ConfigError] = []
    grpc = rest = nodes = superexecs = control = None
    if config.certificates and config.tls:
        with _collect(errors, "certificates"):
            grpc = Certificates(_grpc_sources(config.certificates, config, apis))
    if config.rest_files and Apis.FLEET in apis and config.over_http:
        certificate, key = config.rest_files
        if config.certificates and config.rest_files == config.certificates[1:] and config.tls:
            rest = grpc
        else:
            with _collect(errors, "ssl_certfile"):
                rest = Certificates(Sources(certificate=certificate, key=key))
    if config.require_client_authentication and Apis.FLEET in apis:
        sources = KeySources(*config.require_client_authentication)
        with _collect(errors, "require_client_authentication"):
            nodes = NodeKeys(*read_keys(sources), source=sources.nodes)
    if config.superexec_auth_secret_file and config.isolation == "process" and apis is Apis.BOTH:
        with _collect(errors, "superexec_auth_secret_file"):
            superexecs = SharedSecret(config.superexec_auth_secret_file)
    if config.control_token_file is not None and apis is Apis.BOTH:
        with _collect(errors, "control_token_file"):
            source = config.control_token_file
            control = ControlTokens(read_tokens(source), source=source)
    if errors:
        raise ConfigErrors("files that cannot be used", errors)
    return Credentials(grpc=grpc, rest=rest, nodes=nodes, superexecs=superexecs, control=control)


def _grpc_sources(files: Files, config: SuperLinkConfig, apis: Apis) -> Sources:
    ca, certificate, key = files
    client_ca = config.driver_client_ca if Apis.DRIVER in apis else None
    return Sources(certificate=certificate, key=key, ca=ca, client_ca=client_ca)


@contextmanager
def _collect(errors: list[ConfigError], option: str) -> Iterator[None]:
    """Note what is wrong with the files of an option, and go on."""
    faults = Faults()
    with faults.collect():
        yield
    errors.extend(ConfigError(str(fault), option) for fault in faults)
