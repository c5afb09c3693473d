"""The kinds of values: how each is written, what it becomes, and which values are right.

A value reaches a config as words (command line, environment), as TOML, or as a Python object. Words
are parsed first; from there on there is one reader for all three, and one check.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from superlink_trio.config.address import Address

Files: TypeAlias = tuple[Path, Path, Path]
Text: TypeAlias = str | os.PathLike[str]
T = TypeVar("T")

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
    choices: tuple[str, ...] = ()
    """The only words, where there are few."""
    path: Literal["file", "directory", None] = None
    """What the words are paths of, for a shell that completes them."""
    parse: Callable[[str], object] = str
    """Make of a word what `read` takes. Raises ValueError, naming the word."""
    parsed_in_toml: bool = False
    """Whether text is parsed in a file too, where it is only read otherwise."""
    read: Callable[[Any], object]
    """Make the value, of itself too. Raises ValueError, naming what is none."""
    check: Callable[[Any], str | None] = lambda _: None
    """Say what is wrong with a value that was read, or None."""
    to_text: Callable[[Any], str] = str
    """Write a value as on the command line."""

    def from_words(self, words: Sequence[str]) -> object:
        """Read what follows the option on the command line."""
        return self.read(list(words) if len(self.metavar) > 1 else self.parse(words[0]))

    def from_text(self, text: str) -> object:
        """Read an environment variable; several words are split as a shell does."""
        return self.from_words(shlex.split(text) if len(self.metavar) > 1 else [text])

    def from_toml(self, value: object) -> object:
        """Read a value of a file."""
        text = self.parsed_in_toml and isinstance(value, str)
        return self.read(self.parse(str(value)) if text else value)

    def problem(self, value: object) -> str | None:
        """Say what is wrong with a Python object as a value, or None."""
        try:
            return self.check(self.read(value))
        except ValueError as error:
            return str(error)


def within(kind: Kind, least: float, most: float, what: str) -> Kind:
    """Take only numbers from `least` to `most`."""
    wrong = f"is no {what} that can be used: write {least} to {most}"
    return attrs.evolve(kind, check=_checking(lambda value: least <= value <= most, wrong))


def text(metavar: str) -> Kind:
    """Take any text but an empty one."""
    return Kind(metavar=(metavar,), read=_text, check=_checking(bool, "is empty: write something"))


def choice(*choices: str) -> Kind:
    """Take one of these words."""

    def read(value: object) -> str:
        word: str = _text(value)
        if word in choices:
            return word
        raise ValueError(f"{word!r} is none of {', '.join(choices)}")

    return Kind(metavar=("{" + ",".join(choices) + "}",), choices=choices, read=read)


def files(*metavar: str) -> Kind:
    """Take as many paths as there are names."""

    def read(value: Any) -> tuple[Path, ...]:
        if isinstance(value, (list, tuple)) and len(value) == len(metavar):
            return tuple(map(_read_path, value))
        raise ValueError(f"{value!r} must be {len(metavar)} paths: {', '.join(metavar)}")

    return Kind(
        metavar=metavar,
        path="file",
        read=read,
        to_text=lambda paths: " ".join(map(str, paths)),
    )


def to_address(value: Address | str | None) -> Address | None:
    """Read `host:port`; the check refuses what is none."""
    return _or_itself(_read_address, value)


def to_seconds(value: float) -> float:
    """Make a whole number a float; the check refuses what is none."""
    return _or_itself(_read_seconds, value)


def to_path(value: Text | None) -> Path | None:
    """Make text a path; the check refuses what is none."""
    return _or_itself(_read_path, value)


def to_files(value: Sequence[Text] | None) -> Files | None:
    """Make each of several texts a path; the check refuses what is none."""
    if isinstance(value, (list, tuple)):
        return tuple(map(to_path, value))  # type: ignore[return-value]  # the check counts them
    return value  # type: ignore[return-value]  # the check refuses it


def to_dict(value: Mapping[str, object]) -> dict[str, object]:
    """Copy a mapping; the check refuses what is none."""
    return _or_itself(_read_table, value)


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


def _or_itself(read: Callable[[Any], T], value: object) -> T:
    """Give what is read of a value, or the value where nothing can be read of it."""
    try:
        return read(value)
    except ValueError:
        return value  # type: ignore[return-value]  # the reader refuses it once more, in the check


def _checking(right: Callable[[Any], bool], wrong: str) -> Callable[[Any], str | None]:
    return lambda value: None if right(value) else f"{value!r} {wrong}"


def _typed(wrong: str, *types: type) -> Callable[[object], Any]:
    """Make a reader that takes values of some types; a truth value is no number."""

    def read(value: object) -> object:
        if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
            return value
        raise ValueError(f"{value!r} {wrong}")

    return read


_text = _typed("is no text: put it in quotes", str)
_number_of_seconds = _typed("is no number of seconds", int, float)
_mapping = _typed("is no table", Mapping)


def _read_seconds(value: object) -> float:
    number = _number_of_seconds(value)
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{value!r} is no number of seconds") from None


def _read_address(value: object) -> Address:
    return value if isinstance(value, Address) else Address.parse(_text(value))


def _read_path(value: object) -> Path:
    path = value if isinstance(value, os.PathLike) else _text(value)
    if path == "" or "\0" in str(path):
        raise ValueError(f"{value!r} is no path")
    return Path(path)


def _read_table(value: object) -> dict[str, object]:
    return dict(_mapping(value))


def _parse_json(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no JSON: {error}") from None
    if isinstance(value, dict):
        return value
    raise ValueError(f"{text!r} is no JSON object")


_at_least_one = _checking(lambda value: value >= 1, "is no whole number from 1 up")

FLAG = Kind(
    parse=lambda word: _FLAG_WORDS.get(word.strip().lower(), word),
    read=_typed("is neither true nor false", bool),
    to_text=lambda on: "on" if on else "off",
)
SECONDS = Kind(
    metavar=("SECONDS",),
    parse=partial(_or_itself, float),
    read=_read_seconds,
    # NaN is not 0 or more either.
    check=_checking(lambda value: value >= 0, "is no number of seconds: write 0 or more"),
    to_text="{:g}".format,
)
COUNT = Kind(
    metavar=("N",),
    parse=partial(_or_itself, int),
    read=_typed("is no whole number", int),
    check=_at_least_one,
)
SIZE = Kind(
    metavar=("SIZE",),
    parse=parse_size,
    parsed_in_toml=True,
    read=_typed("is no size: write bytes, or text like '512MiB'", int),
    check=_at_least_one,
    to_text=size_text,
)
ADDRESS = Kind(metavar=("HOST:PORT",), read=_read_address)
FILE = Kind(metavar=("FILE",), path="file", read=_read_path)
DIRECTORY = Kind(metavar=("DIR",), path="directory", read=_read_path)
TABLE = Kind(
    metavar=("JSON",),
    parse=_parse_json,
    parsed_in_toml=True,
    read=_read_table,
    to_text=json.dumps,
)
