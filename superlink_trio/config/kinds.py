"""The kinds of values: how each is written, what it becomes, and which values are right.

A value reaches a config as words (command line, environment), as TOML, or as a Python object. The
readers of the first two raise ValueError, naming the value. The converters of the third (`to_…`)
pass on what they cannot read: the check then says what is wrong with it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from superlink_trio.config.address import Address

Check: TypeAlias = Callable[[object], str | None]
Reader: TypeAlias = Callable[[Any], object]
Files: TypeAlias = tuple[Path, Path, Path]

MOST = 2**31 - 1
"""The largest number that gRPC can be given; more of anything is no limit."""

_FLAG_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True)
_FLAG_WORDS |= dict.fromkeys(("false", "no", "off", "0"), False)
# More digits than any size has are not worth reading.
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]+)?", re.ASCII)
_UNITS = {"b": 1} | {
    f"{letter}{suffix}".lower(): base**power
    for power, letter in enumerate("KMGT", 1)
    for suffix, base in (("iB", 1024), ("B", 1000))
}
_UNIT_NAMES = "KiB, MiB, GiB, TiB, kB, MB, GB or TB"


@attrs.frozen(kw_only=True)
class Kind:
    """What the values of an option are."""

    metavar: tuple[str, ...] = ()
    """A name for each word that follows the option on the command line; a flag has none."""
    read: Reader
    """Read a word, or the list of them where there are several."""
    read_native: Reader | None = None
    """Read what TOML has of its own for such values; None where it is text there."""
    check: Check
    """Say what is wrong with a value by itself, or None."""
    to_text: Callable[[Any], str] = str
    """Write a value as on the command line."""

    def from_words(self, words: Sequence[str]) -> object:
        """Read what follows the option on the command line."""
        return self.read(list(words) if len(self.metavar) > 1 else words[0])

    def from_text(self, text: str) -> object:
        """Read an environment variable; several words are split as a shell does."""
        return self.from_words(shlex.split(text) if len(self.metavar) > 1 else [text])

    def from_toml(self, value: object) -> object:
        """Read a value of a file."""
        if self.read_native is not None:
            return self.read_native(value)
        if isinstance(value, str):
            return self.read(value)
        raise ValueError(f"{value!r} is no text: put it in quotes")


def checking(right: Callable[[Any], bool], wrong: str) -> Check:
    """Make a check; `wrong` is said of a value that is not right."""
    return lambda value: None if right(value) else f"{value!r} {wrong}"


def within(kind: Kind, least: float, most: float, what: str) -> Kind:
    """Take only numbers from `least` to `most`, of the type that `least` has."""
    check = checking(
        lambda value: type(value) is type(least) and least <= value <= most,
        f"is no {what} that can be used: write {least} to {most}",
    )
    return attrs.evolve(kind, check=check)


def text(metavar: str) -> Kind:
    """Take any text but an empty one."""
    check = checking(
        lambda value: isinstance(value, str) and value != "", "is no text, or an empty one"
    )
    return Kind(metavar=(metavar,), read=str, check=check)


def choice(*choices: str) -> Kind:
    """Take one of these words."""
    check = checking(lambda value: value in choices, f"is none of {', '.join(choices)}")
    return Kind(metavar=("{" + ",".join(choices) + "}",), read=partial(_right, check), check=check)


def files(*metavar: str) -> Kind:
    """Take as many paths as there are names."""
    count, wrong = len(metavar), f"must be {len(metavar)} paths: {', '.join(metavar)}"

    def read(words: Any) -> tuple[Path, ...]:
        texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if not texts or len(words) != count:
            raise ValueError(f"{words!r} {wrong}")
        return tuple(map(_read_path, words))

    def right(value: object) -> bool:
        return isinstance(value, tuple) and len(value) == count and not any(map(_check_path, value))

    return Kind(
        metavar=metavar,
        read=read,
        read_native=read,
        check=checking(right, wrong),
        to_text=lambda paths: " ".join(map(str, paths)),
    )


def to_address(value: Address | str | None) -> Address | None:
    """Read `host:port`."""
    if isinstance(value, str):
        with suppress(ValueError):
            return Address.parse(value)
    return value  # type: ignore[return-value]  # the check refuses it


def to_seconds(value: float) -> float:
    """Make a whole number a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    return value


def to_path(value: str | os.PathLike[str] | None) -> Path | None:
    """Make text a path."""
    if isinstance(value, (str, os.PathLike)) and value:
        return Path(value)
    return value  # type: ignore[return-value]  # the check refuses it


def to_files(value: Sequence[str | os.PathLike[str]] | None) -> Files | None:
    """Make each of several texts a path."""
    if isinstance(value, (list, tuple)):
        return tuple(map(to_path, value))  # type: ignore[return-value]  # the check refuses others
    return value  # type: ignore[return-value]  # the check refuses it


def to_dict(value: Mapping[str, object]) -> dict[str, object]:
    """Copy a mapping."""
    if isinstance(value, Mapping):
        return dict(value)
    return value


def parse_size(text: str) -> int:
    """Read a number of bytes: `1048576`, `512MiB`, `1.5 GB`. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    unit = None if found is None else _UNITS.get((found[2] or "B").lower())
    if found is None or unit is None:
        raise ValueError(f"{text!r} is no size: write bytes, or a number with {_UNIT_NAMES}")
    # Every digit of a whole number counts.
    return int(found[1]) * unit if found[1].isdigit() else int(float(found[1]) * unit)


def size_text(size: int) -> str:
    """Write a number of bytes as people do, where that is exact."""
    for name in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _UNITS[name.lower()] == 0:
            return f"{size // _UNITS[name.lower()]}{name}"
    return str(size)


def _right(check: Check, value: object) -> Any:
    """Give the value if it is right; raise ValueError if it is not."""
    if (problem := check(value)) is not None:
        raise ValueError(problem)
    return value


def _read_path(text: str) -> Path:
    path: Path = _right(_check_path, to_path(text))
    return path


def _number(to_number: Callable[[Any], float], what: str, *types: type) -> Reader:
    """Make a reader that takes values of these types."""

    def read(value: Any) -> object:
        if isinstance(value, types) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                return to_number(value)
        raise ValueError(f"{value!r} is no {what}")

    return read


def _read_json(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no JSON: {error}") from None
    if isinstance(value, dict):
        return value
    raise ValueError(f"{text!r} is no JSON object")


def _check_address(value: object) -> str | None:
    if isinstance(value, Address):
        return None
    if not isinstance(value, str):
        return f"{value!r} is no address: write host:port"
    try:
        Address.parse(value)
    except ValueError as error:
        return str(error)
    return None


_check_flag = checking(lambda value: isinstance(value, bool), "is neither true nor false")
_check_path = checking(
    lambda value: isinstance(value, Path) and "\0" not in str(value), "is no path"
)
_check_count = checking(
    lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
    "is no whole number from 1 up",
)
_check_seconds = checking(
    # Written so that NaN, which compares false with everything, is refused as well.
    lambda value: isinstance(value, float) and value >= 0,
    "is no number of seconds: write 0 or more",
)

FLAG = Kind(
    read=lambda word: _right(_check_flag, _FLAG_WORDS.get(word.strip().lower(), word)),
    read_native=partial(_right, _check_flag),
    check=_check_flag,
    to_text=lambda on: "on" if on else "off",
)
SECONDS = Kind(
    metavar=("SECONDS",),
    read=_number(float, "number of seconds", str),
    read_native=_number(float, "number of seconds", int, float),
    check=_check_seconds,
    to_text="{:g}".format,
)
COUNT = Kind(
    metavar=("N",),
    read=_number(int, "whole number", str),
    read_native=_number(int, "whole number", int),
    check=_check_count,
)
_bytes = _number(int, "size: write bytes, or text like '512MiB'", int)
SIZE = Kind(
    metavar=("SIZE",),
    read=parse_size,
    read_native=lambda value: parse_size(value) if isinstance(value, str) else _bytes(value),
    check=_check_count,
    to_text=size_text,
)
ADDRESS = Kind(metavar=("HOST:PORT",), read=Address.parse, check=_check_address)
FILE = Kind(metavar=("FILE",), read=_read_path, check=_check_path)
DIRECTORY = Kind(metavar=("DIR",), read=_read_path, check=_check_path)
_JSON = Kind(
    metavar=("JSON",),
    read=_read_json,
    check=checking(lambda value: isinstance(value, dict), "is no JSON object"),
    to_text=json.dumps,
)
TABLE = attrs.evolve(
    _JSON, read_native=lambda value: value if isinstance(value, dict) else _JSON.from_toml(value)
)
