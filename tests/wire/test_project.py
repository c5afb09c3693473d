from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.wire.project import client_app_in_bundle, config_in_bundle, config_in_directory


def _bundle(text: str, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("pyproject.toml", text)
    return packed.getvalue()


def _in_directory(folder: Path, text: str) -> object:
    (folder / "pyproject.toml").write_text(text)
    return config_in_directory(folder)


def test_nested_tables_are_flattened_with_dots(tmp_path: Path) -> None:
    text = (
        "[tool.flwr.app.config]\nlr = 0.5\n'with.dot' = true\n"
        "[tool.flwr.app.config.a.b]\nc = 'text'\nd = 3\n"
    )
    expected = {"lr": 0.5, "with.dot": True, "a.b.c": "text", "a.b.d": 3}
    assert _in_directory(tmp_path, text) == config_in_bundle(_bundle(text)) == expected


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.flwr.app]\n"])
def test_a_project_without_a_config_has_an_empty_one(tmp_path: Path, text: str) -> None:
    assert _in_directory(tmp_path, text) == config_in_bundle(_bundle(text)) == {}


def test_a_directory_without_a_project_has_an_empty_config(tmp_path: Path) -> None:
    assert config_in_directory(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool", "is no TOML"),
        ("[tool.flwr.app]\nconfig = 3\n", r"\[tool.flwr.app.config\] is no table"),
        ("tool = 3\n", r"\[tool.flwr.app.config\] is no table"),
        ("[tool.flwr.app.config]\na.b = [1]\n", "a.b is a list; it must be a number"),
        ("[tool.flwr.app.config]\nday = 2024-03-27\n", "day is a date; it must be a number"),
        (f"x = {'[' * 5000}{']' * 5000}\n", "is no TOML"),
    ],
)
def test_what_is_wrong_with_a_config_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}/pyproject.toml.*{told}"):
        _in_directory(tmp_path, text)
    with pytest.raises(ValueError, match=f"the bundle's pyproject.toml.*{told}"):
        config_in_bundle(_bundle(text))


def test_a_bundle_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than"):
        config_in_bundle(_bundle("#" * (2 << 20)))


_COMPRESSIONS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@given(data=st.data())
def test_a_bundle_that_is_damaged_is_a_value_error_at_worst(data: st.DataObject) -> None:
    compression = data.draw(st.sampled_from(_COMPRESSIONS))
    damaged = bytearray(_bundle("[tool.flwr.app.config]\nlr = 0.5\n", compression))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    with suppress(ValueError):
        config_in_bundle(bytes(damaged))


def test_a_bundle_says_where_its_client_app_is() -> None:
    text = "[tool.flwr.app.components]\nserverapp = 'a:server'\nclientapp = 'a.b:client'\n"
    assert client_app_in_bundle(_bundle(text)) == "a.b:client"
    with pytest.raises(ValueError, match="names no ClientApp"):
        client_app_in_bundle(_bundle("[tool.flwr.app.components]\nserverapp = 'a:server'\n"))
