"""What can be wrong with a configuration, for whoever has to mend it."""

from __future__ import annotations

from collections.abc import Sequence


class CannotStart(Exception):
    """Something that was configured well cannot be had; the message says what and why.

    `details` are lines for whoever has to mend it, such as the traceback of an app.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class ConfigError(ValueError):
    """One fault of a configuration.

    `problem` says what is wrong and what to do. `fields` names the values that it is about, the
    one to change first.
    """

    def __init__(self, problem: str, *fields: str) -> None:
        super().__init__(f"{fields[0]}: {problem}")
        self.problem = problem
        self.fields = fields


class ConfigErrors(ExceptionGroup[ConfigError]):
    """Every fault of a configuration."""

    @property
    def faults(self) -> tuple[ConfigError, ...]:
        """The parts, by their type."""
        return tuple(part for part in self.exceptions if isinstance(part, ConfigError))

    def derive(self, excs: Sequence[ConfigError]) -> ConfigErrors:  # type: ignore[override]  # narrower on purpose: the parts are always ConfigErrors
        """Keep the type when a part of the group is taken (`except*`, `split`)."""
        return ConfigErrors(self.message, excs)


def raise_all(faults: Sequence[ConfigError]) -> None:
    """Raise ConfigErrors if there are any."""
    if faults:
        raise ConfigErrors("this configuration cannot run", faults)
