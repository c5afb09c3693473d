"""A secret in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from superlink_trio.config import Apis, ConfigErrors, SuperLinkConfig
from superlink_trio.credentials import Credentials, SharedSecret, load
from superlink_trio.credentials.files import FileFault


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"old\n")
    path.chmod(0o600)
    return path


def test_every_byte_counts(path: Path) -> None:
    secret = SharedSecret(path)
    assert secret.value == b"old\n"
    assert "old" not in repr(secret)


def test_a_file_that_others_may_read_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.chmod(0o644)
    SharedSecret(path)
    assert caplog.messages == [f"Others may use the secret in {path}: chmod 600 {path}"]


def test_an_empty_file_is_no_secret(path: Path) -> None:
    secret = SharedSecret(path)
    path.write_bytes(b"")
    with pytest.raises(FileFault, match="is empty: `openssl rand -hex 32 >"):
        secret.reload()
    assert secret.value == b"old\n"


async def test_it_is_read_again_on_request(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = SharedSecret(path)
    credentials = Credentials(grpc=None, rest=None, nodes=None, superexecs=secret)
    path.write_bytes(b"new")
    caplog.set_level("INFO")
    await credentials.reload()
    assert secret.value == b"new"
    path.write_bytes(b"")
    await credentials.reload()
    assert secret.value == b"new"
    first, second = caplog.messages
    assert "that was read just now" in first
    assert second.startswith("The secret of SuperExecs stays as it was")


def test_it_is_read_where_superexecs_are_served(path: Path) -> None:
    config = SuperLinkConfig(port=0, isolation="process", superexec_auth_secret_file=path)
    found = load(config, Apis.BOTH).superexecs
    assert found is not None
    assert found.value == b"old\n"
    assert load(config, Apis.FLEET).superexecs is None
    path.unlink()
    with pytest.raises(ConfigErrors) as caught:
        load(config, Apis.BOTH)
    [fault] = caught.value.faults
    assert fault.fields == ("superexec_auth_secret_file",)
    assert "No such file" in str(fault)
