from __future__ import annotations

import ipaddress
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.config.address import Address

labels = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)
domains = (
    st.lists(labels, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda host: any(character.isalpha() or character == "_" for character in host))
)
hosts = domains | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
ports = st.integers(0, 65535)


@given(hosts, ports)
def test_what_is_written_reads_back(host: str, port: int) -> None:
    address = Address(host, port)
    assert Address.parse(str(address)) == address


@given(st.text() | st.text("0123456789abc.:[]-_ \n%", max_size=30))
def test_any_text_is_an_address_or_a_readable_fault(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError as error:
        assert repr(text)[1:-1] in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert 0 <= address.port <= 65535
        assert Address.parse(str(address)) == address
        assert not set(address.host) & set(" \n[]")


@given(st.ip_addresses(v=6), ports)
def test_an_ipv6_address_needs_brackets(host: ipaddress.IPv6Address, port: int) -> None:
    with pytest.raises(ValueError, match="brackets"):
        Address.parse(f"{host}:{port}")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9091", Address("0.0.0.0", 9091)),
        ("[::]:0", Address("::", 0)),
        ("[fe80::1%eth0.5]:9091", Address("fe80::1%eth0.5", 9091)),
        ("superlink.example.org:443", Address("superlink.example.org", 443)),
        ("node_1:65535", Address("node_1", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("127.0.0.1", r"names no port: write host:port, for example 127\.0\.0\.1:9091"),
        (":9091", r"names no host: write 0\.0\.0\.0:9091"),
        ("localhost:", "a number from 0 to 65535, not ''"),
        ("localhost:99999", "a number from 0 to 65535, not '99999'"),
        ("localhost:٣", "a number from 0 to 65535"),
        ("localhost:-1", "a number from 0 to 65535"),
        ("1.2.3.256:1", "is not an IPv4 address"),
        ("1.2.3:1", "is not an IPv4 address"),
        ("[::g]:1", "is not an IPv6 address"),
        ("[fe80::1%eth 0]:1", "is not an IPv6 address"),
        ("[127.0.0.1]:1", "is not an IPv6 address"),
        ("-a:1", "is no host name"),
        ("a..b:1", "is no host name"),
        (f"{'a' * 64}:1", "is no host name"),
        ("http://host:1", "brackets|host name"),
    ],
)
def test_faults_say_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("LocalHost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_only_loopback_addresses_are_out_of_reach(text: str, loopback: bool) -> None:
    assert Address.parse(text).loopback is loopback
