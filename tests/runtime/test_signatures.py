"""Who asks for runs: SuperExecs sign each call with a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import SuperExecSigner

from superlink_trio.credentials import SharedSecret
from superlink_trio.runtime import Signatures

NOW = 1_800_000_000.0
METHOD = "/flwr.proto.Runtime/AcquireTask"
SECRET = b"correct horse\n"
RAW = b"\n\x0eflwr-serverapp"

# As flwr 1.42.0 signs a call with this secret.
GENUINE = {
    "flwr-superexec-ts": "1800000000",
    "flwr-superexec-nonce": "00112233445566778899aabbccddeeff",
    "flwr-superexec-signature": "9661507bb7192df852f5c88222e780989afe8e98e294be29ebca6b2056ab4607",
}


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> SharedSecret:
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return SharedSecret(path)


@pytest.fixture
def signatures(secret: SharedSecret) -> Signatures:
    return Signatures(secret)


def fault(signatures: Signatures, headers: dict[str, str], now: float = NOW) -> str:
    return signatures.fault(METHOD, RAW, headers, now) or "none"


def test_a_call_as_flower_signs_it(signatures: Signatures) -> None:
    assert fault(signatures, GENUINE) == "none"


@pytest.mark.parametrize("age", [0, 304, -4])
def test_clocks_differ(signatures: Signatures, age: float) -> None:
    headers = SuperExecSigner(SECRET).headers(RAW, NOW - age)
    assert fault(signatures, headers) == "none"


@pytest.mark.parametrize("age", [306, 100_000, -6])
def test_a_call_of_another_time(signatures: Signatures, age: float) -> None:
    headers = SuperExecSigner(SECRET).headers(RAW, NOW - age)
    assert "set both clocks" in fault(signatures, headers)


@pytest.mark.parametrize(
    "signer", [SuperExecSigner(b"wrong"), SuperExecSigner(SECRET, "/flwr.proto.Runtime/ClaimTask")]
)
def test_another_secret_or_call(signatures: Signatures, signer: SuperExecSigner) -> None:
    assert "another secret" in fault(signatures, signer.headers(RAW, NOW))


@pytest.mark.parametrize("name", GENUINE)
@pytest.mark.parametrize("value", [None, "", "no", "0x7", "\u0663", "9" * 5000])
def test_every_header_is_needed(signatures: Signatures, name: str, value: str | None) -> None:
    headers = {key: text for key, text in GENUINE.items() if key != name or value is not None}
    if value is not None:
        headers[name] = value
    assert fault(signatures, headers) != "none"


def test_another_content(signatures: Signatures) -> None:
    assert signatures.fault(METHOD, RAW + b"\n\x01x", GENUINE, NOW) is not None


def test_a_call_is_made_once(signatures: Signatures) -> None:
    assert fault(signatures, GENUINE) == "none"
    for _ in range(2):
        assert "made before" in fault(signatures, GENUINE, NOW + 300)
    # What was refused has used nothing up.
    later = SuperExecSigner(b"wrong").headers(RAW, NOW, nonce="7")
    assert "another secret" in fault(signatures, later)
    assert fault(signatures, SuperExecSigner(SECRET).headers(RAW, NOW, nonce="7")) == "none"


def test_calls_are_remembered_no_longer_than_they_could_be_repeated(
    signatures: Signatures,
) -> None:
    signer = SuperExecSigner(SECRET)
    for second in range(1000):
        now = NOW + second
        assert fault(signatures, signer.headers(RAW, now), now) == "none"
    assert len(signatures._used) <= 312


def test_another_secret_that_was_read_again(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    secret = SharedSecret(path)
    signatures = Signatures(secret)
    path.write_bytes(b"new")
    assert fault(signatures, SuperExecSigner(b"old").headers(RAW, NOW)) == "none"
    secret.reload()
    assert "another secret" in fault(signatures, SuperExecSigner(b"old").headers(RAW, NOW))
    assert fault(signatures, SuperExecSigner(b"new").headers(RAW, NOW)) == "none"


@given(
    st.fixed_dictionaries(
        {},
        optional={name: st.text(st.characters(max_codepoint=255), max_size=80) for name in GENUINE},
    )
)
def test_junk_is_refused(secret: SharedSecret, headers: dict[str, str]) -> None:
    assert fault(Signatures(secret), headers) != "none"
