from __future__ import annotations

import datetime
import logging
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.credentials.certificates import Certificates, Sources, load
from superlink_trio.credentials.files import Faults, FileFault

NOW = datetime.datetime(2027, 1, 15, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue()
    return authority


def faults(sources: Sources, now: datetime.datetime = NOW) -> list[str]:
    with pytest.raises(ExceptionGroup) as caught:
        load(sources, lambda: now)
    assert all(isinstance(fault, FileFault) for fault in caught.value.exceptions)
    return [str(fault) for fault in caught.value.exceptions]


def test_sound_files_are_what_the_server_presents(authority: Authority) -> None:
    identity = load(authority.sources)
    assert identity.certificate == authority.sources.certificate.read_bytes()
    assert identity.key == authority.sources.key.read_bytes()
    assert identity.context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert identity.key.decode() not in repr(identity)


def test_every_fault_of_every_file_is_found_at_once(authority: Authority) -> None:
    sources = attrs.evolve(
        authority.sources,
        ca=authority.folder / "absent.pem",
        client_ca=authority.folder,
    )
    sources.certificate.write_text("hello")
    sources.key.write_bytes(b"\x00\xff")
    told = faults(sources)
    assert told == [
        f"{sources.certificate}: holds no certificate in PEM format",
        f"{sources.key}: holds no private key in PEM format",
        f"{sources.ca}: No such file or directory",
        f"{sources.client_ca}: is no file",
    ]


def _swap(sources: Sources) -> None:
    certificate, key = sources.certificate.read_bytes(), sources.key.read_bytes()
    sources.certificate.write_bytes(key)
    sources.key.write_bytes(certificate)


def _break(sources: Sources) -> None:
    text = sources.certificate.read_text().splitlines()
    sources.certificate.write_text("\n".join([*text[:3], *text[5:]]))


def _unknown_kind(sources: Sources) -> None:
    der = ssl.PEM_cert_to_DER_cert(_first(sources.certificate.read_bytes()))
    ec_key = bytes.fromhex("06072a8648ce3d0201")  # 1.2.840.10045.2.1
    assert ec_key in der
    unknown = der.replace(ec_key, ec_key[:-1] + b"\x7f")
    sources.certificate.write_text(ssl.DER_cert_to_PEM_cert(unknown))


def _encrypt(sources: Sources) -> None:
    key = load_pem_private_key(sources.key.read_bytes(), None)
    sources.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )


def _another_key(sources: Sources) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    sources.key.write_bytes(text)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_swap, ["are two files swapped?", "are two files swapped?"]),
        (_break, ["holds a certificate that cannot be read"]),
        (_encrypt, ["is encrypted"]),
        (_unknown_kind, ["key "]),  # cryptography 42 calls it unreadable, later ones unsupported
        (_another_key, ["is not the key of"]),
        (lambda sources: sources.certificate.write_bytes(b""), ["holds no certificate"]),
        (lambda sources: sources.key.unlink(), ["No such file"]),
    ],
)
def test_what_is_wrong_is_said(
    authority: Authority, spoil: Callable[[Sources], None], words: list[str]
) -> None:
    spoil(authority.sources)
    told = faults(authority.sources)
    assert len(told) == len(words)
    assert all(word in text for word, text in zip(words, told, strict=True))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(authority: Authority) -> None:
    authority.sources.key.chmod(0)
    assert faults(authority.sources) == [f"{authority.sources.key}: Permission denied"]


def test_a_pipe_is_not_waited_for(authority: Authority) -> None:
    authority.sources.key.unlink()
    os.mkfifo(authority.sources.key)
    assert faults(authority.sources) == [f"{authority.sources.key}: is no file"]


def test_certificates_have_their_time(authority: Authority) -> None:
    authority.issue(not_before=NOW - DAY, not_after=NOW + DAY)
    load(authority.sources, lambda: NOW)
    [late] = faults(authority.sources, NOW + 2 * DAY)
    assert "expired on 2027-01-16 00:00 UTC" in late
    [early] = faults(authority.sources, NOW - 2 * DAY)
    assert "not valid before 2027-01-14 00:00 UTC" in early
    assert "this machine says 2027-01-13 00:00 UTC" in early


@given(st.binary(max_size=300), st.sampled_from(["certificate", "key", "ca", "client_ca"]))
def test_any_bytes_are_a_fault(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, which: str
) -> None:
    authority = Authority(tmp_path_factory.mktemp("junk"))
    authority.issue()
    file = authority.folder / "junk"
    file.write_bytes(junk)
    [fault] = faults(attrs.evolve(authority.sources, **{which: file}))
    assert str(file) in fault


@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_a_certificate_with_any_byte_changed_is_sound_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    authority = Authority(tmp_path_factory.mktemp("changed"))
    authority.issue()
    sound = authority.sources.certificate.read_bytes()
    der = bytearray(ssl.PEM_cert_to_DER_cert(_first(sound)))
    position = data.draw(st.integers(0, 499))
    der[position] = data.draw(st.integers(0, 255))
    authority.sources.certificate.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)))
    found = Faults()
    with found.collect():
        load(authority.sources)
    assert all(fault.path in authority.files for fault in found)


def test_what_is_presented_is_what_was_checked(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, really_open = authority.sources, Path.open
    sound = sources.certificate.read_bytes()

    def open_and_renew(path: Path, *arguments: Any) -> Any:
        file = really_open(path, *arguments)
        if path == sources.key:
            monkeypatch.undo()
            for old in (sources.certificate, sources.key):
                old.unlink()
            authority.issue()
        return file

    monkeypatch.setattr(Path, "open", open_and_renew)
    identity = load(sources)
    assert sources.certificate.read_bytes() != sound
    assert identity.certificate == sound
    assert presented(identity.context) == ssl.PEM_cert_to_DER_cert(_first(sound))


def _first(chain: bytes) -> str:
    end = b"-----END CERTIFICATE-----"
    return chain[: chain.index(end) + len(end)].decode()


def presented(context: ssl.SSLContext) -> bytes:
    """Shake hands in memory, and give the certificate that the server shows."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(there, back, server_side=True)
    client = trusting.wrap_bio(back, there)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize(("mode", "told"), [(0o600, 0), (0o640, 1), (0o604, 1)], ids=oct)
def test_a_key_that_others_may_read_is_warned_of(
    authority: Authority, caplog: pytest.LogCaptureFixture, mode: int, told: int
) -> None:
    authority.sources.key.chmod(mode)
    load(authority.sources)
    assert len(caplog.messages) == told
    assert all(f"chmod 600 {authority.sources.key}" in line for line in caplog.messages)


def test_new_files_take_the_place_of_the_old_and_bad_ones_do_not(authority: Authority) -> None:
    certificates = Certificates(authority.sources)
    old = certificates.identity
    authority.sources.key.write_text("hello")
    with pytest.raises(ExceptionGroup):
        certificates.reload()
    assert certificates.identity is old
    authority.issue()
    certificates.reload()
    assert certificates.identity.certificate != old.certificate
    assert certificates.context() is certificates.identity.context is not old.context


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (31, logging.INFO, "is valid until 2027-02-15 00:00 UTC"),
        (
            30,
            logging.WARNING,
            "expires soon, on 2027-02-14 00:00 UTC: put a new one there and send SIGHUP",
        ),
    ],
)
def test_the_log_says_when_a_certificate_expires(
    authority: Authority, caplog: pytest.LogCaptureFixture, days: int, level: int, words: str
) -> None:
    authority.issue(not_before=NOW - DAY, not_after=NOW + days * DAY)
    caplog.set_level(logging.INFO)
    Certificates(authority.sources, lambda: NOW).log_expiry()
    [record] = caplog.records
    assert record.levelno == level
    assert words in record.message


async def test_a_server_that_runs_for_long_warns_in_time(
    authority: Authority, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    authority.issue(not_before=NOW - DAY, not_after=NOW + 32.5 * DAY)
    start = trio.current_time()
    certificates = Certificates(
        authority.sources,
        lambda: NOW + datetime.timedelta(seconds=trio.current_time() - start),
    )
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: certificates.serve(stopping=stopping, task_status=task_status)
        )
        await trio.sleep(2.75 * 24 * 3600)
        assert caplog.messages == []
        await trio.sleep(30.5 * 24 * 3600)
        stopping.set()
        with trio.fail_after(1):
            await wait_all_tasks_blocked()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 30 + ["ERROR"]
    assert "has expired on" in caplog.messages[-1]
