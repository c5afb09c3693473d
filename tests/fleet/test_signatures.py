"""Who calls: nodes sign the time of each call."""

from __future__ import annotations

import base64
import datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from signing import Signer

from superlink_trio.fleet.signatures import check_key, verify
from superlink_trio.rpc import Refused, Status

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def refusal(headers: dict[str, str]) -> str:
    with pytest.raises(Refused) as caught:
        verify(headers, NOW)
    assert caught.value.status is Status.UNAUTHENTICATED
    return caught.value.message


@pytest.mark.parametrize("age", [0, 300, -4])
def test_a_call_is_its_keys(signer: Signer, age: float) -> None:
    assert verify(signer.headers(NOW - age), NOW) == signer.public


def test_a_time_without_a_zone_is_utc(signer: Signer) -> None:
    headers = signer.headers(NOW)
    assert headers["flwr-timestamp"].endswith("+00:00")
    moment = datetime.datetime.fromtimestamp(NOW, tz=datetime.UTC).replace(tzinfo=None)
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    signature = signer.key.sign(moment.isoformat().encode(), ec.ECDSA(hashes.SHA256()))
    headers["flwr-timestamp"] = moment.isoformat()
    headers["flwr-signature"] = base64.b64encode(signature).decode()
    assert verify(headers, NOW) == signer.public


@pytest.mark.parametrize("age", [306, 100_000, -6])
def test_a_call_of_another_time_is_refused(signer: Signer, age: float) -> None:
    assert "set both clocks" in refusal(signer.headers(NOW - age))


def test_another_keys_signature_is_refused(signer: Signer) -> None:
    headers = {**signer.headers(NOW), "flwr-signature": Signer().headers(NOW)["flwr-signature"]}
    assert "not that of the key" in refusal(headers)


@pytest.mark.parametrize("name", ["flwr-public-key", "flwr-signature", "flwr-timestamp"])
def test_every_header_is_needed(signer: Signer, name: str) -> None:
    headers = signer.headers(NOW)
    del headers[name]
    assert name in refusal(headers)


# secp160r1: what OpenSSL still makes.
OF_A_CURVE_THAT_IS_NOT_SUPPORTED = b"""\
-----BEGIN PUBLIC KEY-----
MD4wEAYHKoZIzj0CAQYFK4EEAAgDKgAEjktyHg0P0xv9y/H7U+R98rraxyY7csM8
4LwA9V2MOtXsCoPQoep14w==
-----END PUBLIC KEY-----
"""


def test_a_key_of_a_curve_that_nobody_uses_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be used: Curve"):
        check_key(OF_A_CURVE_THAT_IS_NOT_SUPPORTED)


def test_only_an_ec_key_is_a_nodes() -> None:
    key = rsa.generate_private_key(65537, 1024).public_key()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(Refused, match="no EC key"):
        check_key(pem)
    with pytest.raises(Refused, match="no PEM"):
        check_key(b"junk")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.text(st.characters(max_codepoint=255), max_size=40)
            for name in ("flwr-public-key", "flwr-signature", "flwr-timestamp")
        },
    )
)
def test_junk_is_refused(headers: dict[str, str]) -> None:
    refusal(headers)
