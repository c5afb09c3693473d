from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.credentials.files import FileFault
from superlink_trio.credentials.node_keys import (
    KeySources,
    read_keys,
    read_node_keys,
    warn_of_unusable,
)

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a key pair as users do; gives the private key's file, its neighbour is public."""

    def make(name: str, *options: str, passphrase: str = "") -> Path:
        path = tmp_path / name
        command = ["ssh-keygen", "-q", "-N", passphrase, "-C", f"{name}@host", "-f", str(path)]
        subprocess.run([*command, *(options or ("-t", "ecdsa", "-b", "384"))], check=True)
        return path

    return make


def public(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def faults(sources: KeySources) -> list[str]:
    with pytest.raises(ExceptionGroup) as caught:
        read_keys(sources)
    assert all(isinstance(fault, FileFault) for fault in caught.value.exceptions)
    return [str(fault) for fault in caught.value.exceptions]


def fingerprint(path: Path) -> str:
    told = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, stdout=subprocess.PIPE)
    return told.stdout.decode().split()[1]


def test_any_number_of_keys_a_row(make: Make, tmp_path: Path) -> None:
    one, two, three, server = map(make, ["one", "two", "three", "server"])
    texts = [public(path).read_text().strip() for path in (one, two, three)]
    table = tmp_path / "keys.csv"
    table.write_text(f'\ufeff"{texts[0]}", {texts[1]},\r\n\r\n{texts[2]}\r\n{texts[0]}\r\n')
    pair, nodes = read_keys(KeySources(table, server, public(server)))
    found = {node.fingerprint for node in nodes.values()}
    assert found == {fingerprint(public(path)) for path in (one, two, three)}
    assert pair.public.fingerprint == fingerprint(public(server))
    assert all(pem == node.pem for pem, node in nodes.items())


def test_a_bad_key_is_named_by_row_and_column(make: Make, tmp_path: Path) -> None:
    good = public(make("good")).read_text().strip()
    other = public(make("other", "-t", "ed25519")).read_text().strip()
    table = tmp_path / "keys.csv"
    table.write_text(f"{good}\n{good},{other}\nnonsense,{good}\n")
    with pytest.raises(ExceptionGroup) as caught:
        read_node_keys(table)
    second, third = map(str, caught.value.exceptions)
    assert second.startswith(f"{table}: row 2, column 2: is a key of the kind ssh-ed25519")
    assert third.startswith(f"{table}: row 3, column 1: is no public key")


def test_a_file_of_another_kind_is_not_told_cell_by_cell(tmp_path: Path) -> None:
    table = tmp_path / "keys.csv"
    table.write_text("nonsense\n" * 1000)
    with pytest.raises(ExceptionGroup) as caught:
        read_node_keys(table)
    assert len(caught.value.exceptions) == 11
    assert "and 990 more cells" in str(caught.value.exceptions[-1])


def test_every_fault_of_every_file_is_found_at_once(make: Make, tmp_path: Path) -> None:
    table = tmp_path / "keys.csv"
    table.write_bytes(b"\xff\xfe")
    told = faults(KeySources(table, tmp_path / "absent", make("rsa", "-t", "rsa", "-b", "1024")))
    assert told[0] == f"{table}: is no text: it has to hold OpenSSH public keys"
    assert told[1] == f"{tmp_path / 'absent'}: No such file or directory"
    assert told[2].startswith(f"{tmp_path / 'rsa'}: is no public key as OpenSSH writes them")


def test_the_server_needs_a_pair_of_its_own(make: Make, tmp_path: Path) -> None:
    table = tmp_path / "keys.csv"
    table.write_text("")
    server, other = make("server"), make("other")
    read_keys(KeySources(table, server, public(server)))
    [fault] = faults(KeySources(table, server, public(other)))
    assert fault == f"{public(other)}: is not the public key of {server}"


@pytest.mark.parametrize(
    ("options", "passphrase", "words"),
    [
        (("-t", "ed25519"), "", ["is no EC key; make a pair with: ssh-keygen -t ecdsa -b 384"]),
        (("-t", "ecdsa", "-b", "384"), "secret", ["is encrypted"]),
        (("-t", "ecdsa", "-b", "384", "-m", "PEM"), "", ["is no private key in OpenSSH's format"]),
    ],
)
def test_a_private_key_of_another_kind_is_refused(
    make: Make, tmp_path: Path, options: tuple[str, ...], passphrase: str, words: list[str]
) -> None:
    table = tmp_path / "keys.csv"
    table.write_text("")
    key, sound = make("server", *options, passphrase=passphrase), make("sound")
    told = faults(KeySources(table, key, public(sound)))
    assert len(told) == len(words)
    assert all(word in text for word, text in zip(words, told, strict=True))


def test_a_private_key_that_others_may_read_is_warned_of(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = make("server")
    table = tmp_path / "keys.csv"
    table.write_text("")
    read_keys(KeySources(table, server, public(server)))
    assert not caplog.messages
    server.chmod(0o644)
    read_keys(KeySources(table, server, public(server)))
    [line] = caplog.messages
    assert f"chmod 600 {server}" in line


def test_what_is_listed_in_vain_is_told(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short, server = make("short", "-t", "ecdsa", "-b", "256"), make("server")
    table = tmp_path / "keys.csv"
    table.write_text(public(short).read_text())
    caplog.set_level(logging.WARNING)
    warn_of_unusable(*read_keys(KeySources(table, server, public(server))))
    assert fingerprint(public(short)) in caplog.text
    assert "is on secp256r1 and will be refused: the server's is on secp384r1" in caplog.text
    warn_of_unusable(read_keys(KeySources(table, server, public(server)))[0], {})
    assert "nobody can join" in caplog.text


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_list_is_keys_or_faults(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    table = tmp_path_factory.mktemp("keys") / "keys.csv"
    table.write_bytes(raw)
    with suppress(FileFault, ExceptionGroup):
        assert read_node_keys(table) == {}
