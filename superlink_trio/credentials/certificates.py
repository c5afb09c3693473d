"""Certificates: what a server presents, read from PEM files, checked, and read again on request.

Nothing is used that was not checked: gRPC ignores a bad certificate silently, and a bad key loaded
into a live `ssl.SSLContext` breaks every handshake after it.
"""

from __future__ import annotations

import datetime
import logging
import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import attrs
import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from superlink_trio.credentials.files import Faults, FileFault, encrypted, read

_log = logging.getLogger(__name__)

WARN_BEFORE = datetime.timedelta(days=30)
"""How long before a certificate expires it is warned of."""

# Seconds. Often enough to be seen by whoever reads a day's log.
_LOOK_EVERY = 24 * 3600

_OTHER_KIND = "its key is of a kind that gRPC does not take: use RSA, ECDSA or Ed25519"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

Clock = Callable[[], datetime.datetime]


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@attrs.frozen(kw_only=True)
class Sources:
    """The PEM files of a server."""

    certificate: Path
    """The server's certificate, then those between it and the CA's."""
    key: Path
    ca: Path | None = None
    """What clients trust. The server does not need it; it is checked for their sake."""
    client_ca: Path | None = None
    """Clients of the Driver API have to present a certificate that one of these has signed."""

    @property
    def authorities(self) -> Sequence[Path]:
        """Those that hold certificates of authorities."""
        return [path for path in (self.ca, self.client_ca) if path is not None]

    @property
    def paths(self) -> Sequence[Path]:
        """All of them, each once."""
        return list(dict.fromkeys((self.certificate, self.key, *self.authorities)))


@attrs.frozen(kw_only=True)
class Identity:
    """What a server presents: files that were read, found sound, and belong together."""

    certificate: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)
    client_ca: bytes | None = attrs.field(repr=False)
    expires: datetime.datetime
    context: ssl.SSLContext = attrs.field(repr=False)
    """For servers on Python's own TLS: 1.2 at least."""


def load(sources: Sources, now: Clock = _utc_now) -> Identity:
    """Read the files and check that a server can use them.

    Raises an ExceptionGroup with a FileFault for everything that is wrong with any of the files.
    """
    faults = Faults()
    texts: dict[Path, bytes] = {}
    for path in sources.paths:
        with faults.collect():
            texts[path] = read(path, private=path == sources.key)
    leaf = _verify(sources, texts, now(), faults)
    return Identity(
        certificate=texts[sources.certificate],
        key=texts[sources.key],
        client_ca=texts[sources.client_ca] if sources.client_ca else None,
        expires=leaf.not_valid_after_utc,
        context=_context(sources, texts),
    )


def check(ca: bytes, certificate: bytes, key: bytes, now: Clock = _utc_now) -> None:
    """Check what is no file: PEM texts that a program hands over.

    Raises like `load`; the faults call the texts CA, certificate and key.
    """
    names = Sources(certificate=Path("certificate"), key=Path("key"), ca=Path("CA"))
    texts = dict(zip(names.paths, (certificate, key, ca), strict=True))
    _verify(names, texts, now(), Faults())


def _verify(
    sources: Sources, texts: Mapping[Path, bytes], now: datetime.datetime, faults: Faults
) -> x509.Certificate:
    """Check those texts that could be read; give the server's certificate if nothing is wrong."""
    leaves: list[x509.Certificate] = []
    keys: list[PrivateKeyTypes] = []
    if sources.certificate in texts:
        with faults.collect():
            leaves.append(_leaf(sources.certificate, texts[sources.certificate], now))
    if sources.key in texts:
        with faults.collect():
            keys.append(_private_key(sources.key, texts[sources.key]))
    if leaves and keys and not _belong_together(leaves[0], keys[0]):
        faults.append(FileFault(sources.key, f"is not the key of {sources.certificate}"))
    for path in sources.authorities:
        if path in texts:
            with faults.collect():
                _check_authority(path, texts[path], now)
    faults.sort(key=lambda fault: sources.paths.index(fault.path))
    faults.throw("certificates that cannot be used")
    return leaves[0]


def _leaf(path: Path, text: bytes, now: datetime.datetime) -> x509.Certificate:
    leaf = _certificates(path, text)[0]
    if problem := _out_of_time(leaf, now) or _unusable(leaf):
        raise FileFault(path, problem)
    return leaf


def _certificates(path: Path, text: bytes) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        if b"PRIVATE KEY-----" in text and b"BEGIN CERTIFICATE" not in text:
            problem = "holds a private key where a certificate belongs: are two files swapped?"
        elif b"-----BEGIN CERTIFICATE-----" in text:
            problem = _unreadable(error)
        else:
            problem = "holds no certificate in PEM format"
        raise FileFault(path, problem) from error


def _unreadable(error: Exception) -> str:
    return f"holds a certificate that cannot be read: {error}"


# What is in a certificate is read when it is asked for, and may turn out to be nonsense then.


def _out_of_time(certificate: x509.Certificate, now: datetime.datetime) -> str | None:
    try:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError as error:
        return _unreadable(error)
    if ends <= now:
        return f"the certificate expired on {_words(ends)}"
    if begins > now:
        return (
            f"the certificate is not valid before {_words(begins)}; "
            f"the clock of this machine says {_words(now)}"
        )
    return None


def _unusable(certificate: x509.Certificate) -> str | None:
    try:
        key = certificate.public_key()
    except ValueError as error:
        return _unreadable(error)
    except UnsupportedAlgorithm:
        usable = False
    else:
        usable = (
            isinstance(key.curve, _CURVES)
            if isinstance(key, ec.EllipticCurvePublicKey)
            else isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey)
        )
    return None if usable else _OTHER_KIND


def _private_key(path: Path, text: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(text, password=None)
    except TypeError as error:
        raise encrypted(path, f"openssl pkey -in {path} -out NEW_FILE") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"-----BEGIN CERTIFICATE-----" in text and b"PRIVATE KEY-----" not in text:
            problem = "holds a certificate where a private key belongs: are two files swapped?"
        else:
            problem = "holds no private key in PEM format"
        raise FileFault(path, problem) from error


def _belong_together(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _check_authority(path: Path, text: bytes, now: datetime.datetime) -> None:
    """Refuse a file none of whose certificates can be trusted now; a bundle may have old ones."""
    problems = [_out_of_time(certificate, now) for certificate in _certificates(path, text)]
    if problems and all(problems):
        raise FileFault(path, problems[0] or "")


def _context(sources: Sources, texts: Mapping[Path, bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with (
            _in_memory(texts[sources.certificate]) as certificate,
            _in_memory(texts[sources.key]) as key,
        ):
            context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        fault = FileFault(sources.certificate, f"OpenSSL does not take it: {error}")
        raise ExceptionGroup("certificates that cannot be used", [fault]) from error
    return context


@contextmanager
def _in_memory(text: bytes) -> Iterator[str]:
    """Give OpenSSL, which reads nothing but files, one that holds what was checked.

    What is at the path of the original may be another file by now.
    """
    with _unnamed_file() as file:
        file.write(text)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _unnamed_file() -> BinaryIO:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("superlink-trio"), "w+b")
    return cast("BinaryIO", tempfile.TemporaryFile())


class Certificates:
    """What a server presents now; a sound set of new files takes the place of the old one."""

    def __init__(self, sources: Sources, now: Clock = _utc_now) -> None:
        """Read the files. Raises like `load`."""
        self.sources = sources
        self._now = now
        self._identity = load(sources, now)

    @property
    def identity(self) -> Identity:
        """The set in use. Safe to ask for from any thread, and never waits."""
        return self._identity

    def context(self) -> ssl.SSLContext:
        """Give what a new connection is to be wrapped with, now."""
        return self._identity.context

    def reload(self) -> None:
        """Read the files again. Connections that are open keep what they began with.

        Raises like `load`; nothing has changed then.
        """
        self._identity = load(self.sources, self._now)

    def log_expiry(self) -> None:
        """Log until when the certificate is valid: a warning when that is soon."""
        expires = self._identity.expires
        left = expires - self._now()
        extra = {"certificate": str(self.sources.certificate), "expires": expires.isoformat()}
        if left > WARN_BEFORE:
            _log.info(
                "%s is valid until %s", self.sources.certificate, _words(expires), extra=extra
            )
        elif left > datetime.timedelta(0):
            _log.warning(
                "%s expires soon, on %s: put a new one there and send SIGHUP",
                *(self.sources.certificate, _words(expires)),
                extra=extra,
            )
        else:
            _log.error(
                "%s has expired on %s: clients refuse it; put a new one there and send SIGHUP",
                *(self.sources.certificate, _words(expires)),
                extra=extra,
            )

    async def serve(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Tell the expiry at once, and then once a day while it is near, until `stopping`."""
        self.log_expiry()
        task_status.started()
        while not stopping.is_set():
            with trio.move_on_after(_LOOK_EVERY):
                await stopping.wait()
                return
            if self._identity.expires - self._now() <= WARN_BEFORE:
                self.log_expiry()


def _words(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
