"""The file of tokens for `flwr`."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from superlink_trio.config import Apis, ConfigErrors, SuperLinkConfig
from superlink_trio.credentials import Credentials, load

FIRST, SECOND = "0123456789abcdef" * 2, "AZ-._~+/" * 4 + "=="


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    return path


def credentials(file: Path) -> Credentials:
    return load(SuperLinkConfig(port=8000, control_token_file=file), Apis.BOTH)


def problems(file: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        credentials(file)
    assert {fault.fields for fault in caught.value.faults} == {("control_token_file",)}
    return [fault.problem for fault in caught.value.faults]


def test_a_token_a_line(file: Path) -> None:
    file.write_text(f"# ana's\n{FIRST}\n\n  {SECOND}  \r\n")
    tokens = credentials(file).control
    assert tokens is not None
    assert tokens.find(FIRST)
    assert tokens.find(SECOND)
    assert tokens.find(FIRST) != tokens.find(SECOND)
    for other in ("", "# ana's", FIRST[:-1], FIRST.upper(), "ü"):
        assert tokens.find(other) is None


def test_the_sides_alone_need_no_tokens(file: Path) -> None:
    config = SuperLinkConfig(control_token_file=file)
    assert load(config, Apis.DRIVER).control is None


def test_every_line_that_is_no_token_is_told_but_not_what_it_says(file: Path) -> None:
    file.write_text(f"{FIRST}\nhunter2\ntwo words that are long enough to count\n")
    short, spaced = problems(file)
    assert short == (
        f"{file}: line 2: a token has 32 characters at least, this one has 7: make one with "
        "`openssl rand -hex 32`"
    )
    assert spaced.startswith(f"{file}: line 3: a token is letters, digits and")
    assert not any("hunter2" in problem or "words" in problem for problem in (short, spaced))


@pytest.mark.parametrize("text", ["", "\n# nobody yet\n"])
def test_a_file_without_tokens(file: Path, text: str) -> None:
    file.write_text(text)
    [problem] = problems(file)
    assert "holds no token: make one with `openssl rand -hex 32`" in problem


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == [f"{tmp_path / 'none'}: No such file or directory"]


def test_a_file_that_others_may_read(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(FIRST)
    file.chmod(0o640)
    credentials(file)
    assert f"Others may use the secret in {file}: chmod 600 {file}" in caplog.messages


async def test_the_file_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(FIRST)
    read = credentials(file)
    assert read.control is not None
    file.write_text("junk")
    await read.reload()
    assert "The tokens for flwr stay as they were: " in caplog.messages[-1]
    assert read.control.find(FIRST)
    file.write_text(SECOND)
    await read.reload()
    assert read.control.find(FIRST) is None
    assert read.control.find(SECOND)
