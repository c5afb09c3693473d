"""Certificates for tests: made anew each time, by authorities that nobody else trusts."""

from __future__ import annotations

import datetime
from pathlib import Path

import attrs
import trustme

from superlink_trio.credentials.certificates import Sources


@attrs.frozen
class Authority:
    """An authority, and a folder for what it signs."""

    folder: Path
    _ca: trustme.CA = attrs.field(factory=trustme.CA)

    @property
    def pem(self) -> bytes:
        return self._ca.cert_pem.bytes()

    @property
    def sources(self) -> Sources:
        """A server's files; `issue` fills them."""
        return Sources(
            certificate=self.folder / "server.pem",
            key=self.folder / "server.key",
            ca=self.folder / "ca.pem",
        )

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """The same, as `--certificates` takes them."""
        return self.folder / "ca.pem", self.folder / "server.pem", self.folder / "server.key"

    def issue(
        self,
        *,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
    ) -> trustme.LeafCert:
        """Sign a new certificate for this machine and write the server's files."""
        leaf = self._ca.issue_cert(
            *("localhost", "127.0.0.1"), not_before=not_before, not_after=not_after
        )
        (self.folder / "ca.pem").write_bytes(self.pem)
        (self.folder / "server.key").write_bytes(leaf.private_key_pem.bytes())
        (self.folder / "server.key").chmod(0o600)
        (self.folder / "server.pem").write_bytes(chain(leaf))
        return leaf

    def client(self) -> tuple[bytes, bytes]:
        """Give the key and the chain of a client."""
        leaf = self._ca.issue_cert("client@example.org")
        return leaf.private_key_pem.bytes(), chain(leaf)


def chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
