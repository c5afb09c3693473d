"""The keys of node authentication: the server's pair, and the list of nodes' public keys."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from superlink_trio.credentials.files import Faults, FileFault, encrypted, read

_log = logging.getLogger(__name__)

_MAKE = "make a pair with: ssh-keygen -t ecdsa -b 384"

# Faults of one list that are told one by one; a file of another kind has one in every row.
_MOST_TOLD = 10


@attrs.frozen(eq=False)
class NodeKey:
    """A node's public key."""

    key: ec.EllipticCurvePublicKey = attrs.field(repr=False)
    pem: bytes = attrs.field(repr=False)
    """As PEM SubjectPublicKeyInfo: what nodes send, and what a store knows the key by."""

    @classmethod
    def of(cls, key: ec.EllipticCurvePublicKey) -> NodeKey:
        """Give the form of a key that there is one of."""
        return cls(key, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    @classmethod
    def from_header(cls, text: str) -> NodeKey:
        """Read what a node sends: PEM in url-safe base64. Raises ValueError."""
        pem = base64.b64decode(text, altchars=b"-_", validate=True)
        try:
            key = load_pem_public_key(pem)
        except UnsupportedAlgorithm as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not an EC key")  # noqa: TRY004 (a value that came over the wire)
        return cls.of(key)

    @property
    def header(self) -> str:
        """As the key travels."""
        return base64.urlsafe_b64encode(self.pem).decode()

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it; the curve's name for a curve that OpenSSH does not have."""
        try:
            text = self.key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        except ValueError:
            return f"a key on {self.key.curve.name}"
        digest = hashlib.sha256(base64.b64decode(text.split()[1])).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


class ServerKey:
    """The server's key pair, and the secrets that it shares with nodes."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        self._private_key = private_key
        self.public = NodeKey.of(private_key.public_key())

    @property
    def curve(self) -> str:
        """The name of the curve that nodes' keys have to be on."""
        return self._private_key.curve.name

    def shares_curve_with(self, node: NodeKey) -> bool:
        """Whether a secret can be agreed on with a node's key."""
        return node.key.curve.name == self.curve

    def secret(self, node: NodeKey) -> bytes:
        """Derive the key under which a node signs its calls.

        ECDH, then HKDF-SHA256 (RFC 5869) to 32 bytes without salt and info; the text of its
        url-safe base64 is the key.
        """
        shared = self._private_key.exchange(ec.ECDH(), node.key)
        derived = HKDF(hashes.SHA256(), length=32, salt=None, info=None).derive(shared)
        return base64.urlsafe_b64encode(derived)


@attrs.frozen
class KeySources:
    """The files of node authentication."""

    nodes: Path
    """CSV: OpenSSH public keys, any number a row."""
    private_key: Path
    public_key: Path


def read_keys(sources: KeySources) -> tuple[ServerKey, Mapping[bytes, NodeKey]]:
    """Read the server's pair, and the nodes' keys by their PEM.

    Raises an ExceptionGroup with a FileFault for everything that is wrong with any of the files.
    """
    faults = Faults()
    nodes: Mapping[bytes, NodeKey] = {}
    private: list[ec.EllipticCurvePrivateKey] = []
    public: list[ec.EllipticCurvePublicKey] = []
    with faults.collect():
        nodes = read_node_keys(sources.nodes)
    with faults.collect():
        private.append(_read_private_key(sources.private_key))
    with faults.collect():
        public.append(_read_public_key(sources.public_key))
    if private and public and NodeKey.of(private[0].public_key()).pem != NodeKey.of(public[0]).pem:
        faults.append(
            FileFault(sources.public_key, f"is not the public key of {sources.private_key}")
        )
    faults.throw("keys that cannot be used")
    return ServerKey(private[0]), nodes


def read_node_keys(path: Path) -> Mapping[bytes, NodeKey]:
    """Read the list of nodes' keys; give them by their PEM.

    Raises an ExceptionGroup with a FileFault for each cell that is no EC key in OpenSSH's form,
    and FileFault for a file that cannot be read.
    """
    try:
        text = read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFault(path, "is no text: it has to hold OpenSSH public keys") from error
    nodes: dict[bytes, NodeKey] = {}
    faults = Faults()
    for row, column, cell in _cells(path, text):
        try:
            node = NodeKey.of(_ssh_public_key(cell.encode()))
        except ValueError as error:
            faults.append(FileFault(path, f"row {row}, column {column}: {error}"))
        else:
            nodes[node.pem] = node
    if (more := len(faults) - _MOST_TOLD) > 0:
        faults[_MOST_TOLD:] = [FileFault(path, f"and {more} more cells that hold no EC key")]
    faults.throw("keys that cannot be used")
    return nodes


def _cells(path: Path, text: str) -> Iterator[tuple[int, int, str]]:
    """Give what stands in the table, with its row and column counted from 1."""
    try:
        for row, cells in enumerate(csv.reader(io.StringIO(text)), 1):
            for column, cell in enumerate(cells, 1):
                if cell.strip():
                    yield row, column, cell.strip()
    except csv.Error as error:
        raise FileFault(path, f"is no CSV: {error}") from error


def _ssh_public_key(text: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_ssh_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("is no public key as OpenSSH writes them (ecdsa-sha2-…)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        kind = text.split()[0].decode(errors="replace")
        raise ValueError(f"is a key of the kind {kind}, and no EC key; {_MAKE}")  # noqa: TRY004
    return key


def _read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    text = read(path)
    try:
        return _ssh_public_key(text)
    except ValueError as error:
        raise FileFault(path, str(error)) from error


def _read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    text = read(path, private=True)
    try:
        key = load_ssh_private_key(text, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        # A TypeError since cryptography 43, a ValueError like any other before.
        if "password" in str(error):
            raise encrypted(path, f"ssh-keygen -p -N '' -f {path}") from error
        raise FileFault(path, f"is no private key in OpenSSH's format; {_MAKE}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FileFault(path, f"is no EC key; {_MAKE}")
    return key


def warn_of_unusable(server: ServerKey, nodes: Mapping[bytes, NodeKey]) -> None:
    """Log what is listed in vain, or that nothing is."""
    if not nodes:
        _log.warning("No node's key is listed: nobody can join")
    for node in nodes.values():
        if not server.shares_curve_with(node):
            _log.warning(
                "The listed key %s is on %s and will be refused: the server's is on %s",
                *(node.fingerprint, node.key.curve.name, server.curve),
            )
