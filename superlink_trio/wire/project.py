"""What an app's pyproject.toml says: its name, and its config, `[tool.flwr.app.config]`.

Flower's own templates keep an app's settings there; `flwr run --run-config` overrides them.
"""

from __future__ import annotations

import tomllib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import attrs

from superlink_trio.wire.runs import Scalar

_NAME = "pyproject.toml"

# A bundle is a driver's, and may unpack to anything.
_MAX_SIZE = 1024 * 1024

# RuntimeError: it is encrypted, or needs a later version of the format.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError)


def config_in_directory(directory: Path) -> dict[str, Scalar]:
    """Read the config of an app that lies in a directory; it is empty where there is no such file.

    Nested tables are flattened, their names joined by dots. Raises ValueError, OSError.
    """
    path = directory / _NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    return _config(text, str(path))


def config_in_bundle(content: bytes) -> dict[str, Scalar]:
    """Read the config of an app that came as a bundle (FAB). Raises ValueError."""
    return _config(_in_bundle(content), f"the bundle's {_NAME}")


def client_app_in_bundle(content: bytes) -> str:
    """Read where the ClientApp of a bundle (FAB) is: `module:attribute`. Raises ValueError."""
    where = f"the bundle's {_NAME}"
    components = _at(_table(_in_bundle(content), where), where, "tool", "flwr", "app", "components")
    reference = components.get("clientapp")
    if not isinstance(reference, str):
        raise ValueError(  # noqa: TRY004 - it is a file's content that is wrong
            f"{where} names no ClientApp: [tool.flwr.app.components] clientapp"
        )
    return reference


@attrs.frozen
class Project:
    """An app, as its bundle names it. `fab_id`: `publisher/name`."""

    fab_id: str
    version: str
    config: Mapping[str, Scalar]


def project_in_bundle(content: bytes) -> Project:
    """Read who made the app that a bundle (FAB) holds, and its config. Raises ValueError."""
    where = f"the bundle's {_NAME}"
    text = _in_bundle(content)
    table = _table(text, where)
    project, app = _at(table, where, "project"), _at(table, where, "tool", "flwr", "app")
    words = [app.get("publisher"), project.get("name"), project.get("version")]
    if not all(isinstance(word, str) and word for word in words):
        raise ValueError(
            f"{where} has to name project.name, project.version and tool.flwr.app.publisher"
        )
    publisher, name, version = map(str, words)
    return Project(f"{publisher}/{name}", version, _config(text, where))


def _in_bundle(content: bytes) -> bytes:
    try:
        with zipfile.ZipFile(BytesIO(content)) as bundle:
            text = _read(bundle, bundle.getinfo(_NAME))
    except _UNREADABLE as error:
        raise ValueError(f"the bundle's {_NAME} cannot be read: {error}") from error
    if len(text) > _MAX_SIZE:
        raise ValueError(f"the bundle's {_NAME} is larger than {_MAX_SIZE} bytes")
    return text


def _read(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # The others unpack what they were given as a whole, however much it becomes.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile("it is neither stored nor deflated")
    with bundle.open(entry) as file:
        return file.read(_MAX_SIZE + 1)


def _config(text: bytes, where: str) -> dict[str, Scalar]:
    config = _at(_table(text, where), where, "tool", "flwr", "app", "config")
    return dict(_flat(config, where, ""))


def _table(text: bytes, where: str) -> dict[str, object]:
    try:
        # Deep nesting is a RecursionError.
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no TOML: {error}") from error


def _at(table: object, where: str, *names: str) -> Mapping[str, object]:
    for name in names:
        table = table.get(name, {}) if isinstance(table, dict) else table
    if not isinstance(table, dict):
        raise ValueError(f"{where}: [{'.'.join(names)}] is no table")  # noqa: TRY004 - as below
    return table


def _flat(table: Mapping[str, object], where: str, prefix: str) -> Iterator[tuple[str, Scalar]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, where, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            yield prefix + name, value
        else:
            raise ValueError(  # noqa: TRY004 - it is a file's content that is wrong
                f"{where}: [tool.flwr.app.config] {prefix}{name} is a {type(value).__name__}; it "
                "must be a number, a text, true or false, or a table of those"
            )
