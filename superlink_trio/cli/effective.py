"""The configuration that came of all sources, as a TOML file that says where each value is from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import attrs

from superlink_trio.config import Option, Settings, SuperLinkConfig
from superlink_trio.config.kinds import Kind
from superlink_trio.config.reading import COMMAND_LINE, ENVIRONMENT

# A password of a URL, whatever is in it: before the host, or among what follows it.
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@|(?<=[?&]password=)[^&]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def effective(options: Iterable[Option], settings: Settings, config: SuperLinkConfig) -> str:
    """Write every option with its value and its source; those that stand for others as those.

    What has no value, or a fault, is a comment. The password in a database's URL is not shown.
    """
    values = {name: settings.get(name) for name in ("config", "log_level", "log_format")}
    values |= {field.name: getattr(config, field.name) for field in attrs.fields(type(config))}
    text = ""
    for section, members in groupby(options, key=lambda option: option.section):
        lines = [
            _line(option, values[option.name], settings)
            for option in members
            if option.name in values
        ]
        text += f"# {section.value}\n{''.join(lines)}\n"
    return text.rstrip("\n") + "\n"


def _line(option: Option, value: Any, settings: Settings) -> str:
    if option.name in settings.unclear:
        return f"# {option.key}  # has a fault\n"
    source = _source(option, settings)
    if value is None and not option.kind.choices:
        return f"# {option.key}  # {source}: {option.default or 'none'}\n"
    given = _toml(option.kind, option.default if value is None else value)
    # A file names no other.
    comment = "# " if option.name == "config" else ""
    return f"{comment}{option.key} = {given}  # {source}\n"


def _source(option: Option, settings: Settings) -> str:
    setting = settings.given.get(option.name)
    if setting is None:
        return "default"
    if setting.rank == COMMAND_LINE:
        return f"command line: {setting.source}"
    if setting.rank == ENVIRONMENT:
        return f"environment variable {setting.source}"
    return _CONTROL.sub("?", f"file {settings.get('config')}")


def _toml(kind: Kind, value: Any) -> str:
    if kind.parsed_in_toml:
        return _quoted(kind.to_text(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_quoted(str(part)) for part in value)}]"
    return _quoted(_PASSWORD.sub(_hidden, str(value)))


def _hidden(password: re.Match[str]) -> str:
    user = password[1]
    return "***" if user is None else f"{user}:***@"


def _quoted(text: str) -> str:
    if '"' in text and "'" not in text and not _CONTROL.search(text):
        return f"'{text}'"
    # JSON's escapes are TOML's, but for one character; half a surrogate neither can write.
    quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return _CONTROL.sub("?", quoted)
