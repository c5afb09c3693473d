"""What differs between two configurations, for a program that runs with the first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import attrs

from superlink_trio.config.options import Apis, Option, options_of
from superlink_trio.config.superlink import SuperLinkConfig

_log = logging.getLogger(__name__)


@attrs.frozen
class Change:
    """An option whose value is another one than before. Both are as on the command line."""

    option: Option
    before: str
    after: str


def changes(
    options: Iterable[Option],
    before: Callable[[Option], object],
    after: Callable[[Option], object],
) -> Iterator[Change]:
    """Give the options whose values differ; None is what nobody gave."""
    for option in options:
        was, becomes = _in_words(option, before(option)), _in_words(option, after(option))
        if was != becomes:
            yield Change(option, was, becomes)


def log_changes(found: Iterable[Change]) -> None:
    """Log a line for each change, and whether it counts at once."""
    for change in found:
        extra = {"option": change.option.name, "before": change.before, "after": change.after}
        if change.option.reloads:
            _log.info(
                "%s is %s now, it was %s",
                *(change.option.flag, change.after, change.before),
                extra=extra,
            )
        else:
            _log.warning(
                "%s stays %s until a restart, it is to be %s",
                *(change.option.flag, change.before, change.after),
                extra=extra,
            )


class Current:
    """The config in force, for whoever needs of it what may change. Calling it gives it."""

    def __init__(self, config: SuperLinkConfig, apis: Apis) -> None:
        self._config = config
        self._apis = apis

    def __call__(self) -> SuperLinkConfig:
        """Give the config of this moment."""
        return self._config

    def take(self, wanted: SuperLinkConfig) -> None:
        """Let those options of another config count that can change; log what differs.

        Raises ConfigErrors if it cannot run; nothing is changed then.
        """
        wanted.check(self._apis)
        options = list(options_of(SuperLinkConfig))
        found = list(
            changes(
                options,
                lambda option: getattr(self._config, option.name),
                lambda option: getattr(wanted, option.name),
            )
        )
        log_changes(found)
        if not found:
            _log.info("No option of the SuperLink has changed")
        reloadable = {each.name: getattr(wanted, each.name) for each in options if each.reloads}
        self._config = attrs.evolve(self._config, **reloadable)


def _in_words(option: Option, value: object) -> str:
    return option.default or "none" if value is None else option.kind.to_text(value)
