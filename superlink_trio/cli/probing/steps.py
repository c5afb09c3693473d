"""Steps: each is a call, and is told with the time that it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs
from google.protobuf.message import DecodeError, Message

from superlink_trio.transport.client import Begin, NotAnswered, Send

# Seconds that are left for signing off, whatever else took how long.
_PARTING = 1.0

_Answer = TypeVar("_Answer", bound=Message)


class Failed(Exception):
    """A step of the probe failed; says which, why, and what to do."""


@attrs.define(kw_only=True)
class Steps:
    """Makes calls, all of them until `deadline`, a time of `time.monotonic`."""

    deadline: float
    advice: Mapping[str, str]
    """What to do, by the code of what went wrong."""
    took: float = 0.0
    """Milliseconds of all steps."""

    def ask(
        self, step: str, send: Send, name: str, request: Message, response: type[_Answer]
    ) -> _Answer:
        """Make a call, and tell how long it took. Raises Failed."""
        return self._told(
            step, lambda left: send(name, request.SerializeToString(), left), response
        )

    def begin(
        self, step: str, begin: Begin, name: str, request: Message, response: type[_Answer]
    ) -> Callable[[str], _Answer]:
        """Begin a call; give what ends it, as a step of its own. Raises Failed, and so does that.

        What ends it has been there for the time of all steps in between, which it does not tell.
        """
        try:
            end = begin(name, request.SerializeToString(), self._left())
        except NotAnswered as error:
            raise self._failed(step, error) from None
        return lambda step: self._told(step, lambda _: end(), response)

    def may_sign_off(self) -> None:
        """Leave time for the last steps."""
        self.deadline = max(self.deadline, time.monotonic() + _PARTING)

    def _told(self, step: str, call: Callable[[float], bytes], response: type[_Answer]) -> _Answer:
        began = time.monotonic()
        try:
            answer = response.FromString(call(self._left()))
        except NotAnswered as error:
            raise self._failed(step, error) from None
        except DecodeError:
            raise Failed(f"{step}: what answered is no SuperLink") from None
        took = (time.monotonic() - began) * 1000
        self.took += took
        tell(step, took)
        return answer

    def _left(self) -> float:
        return max(0.001, self.deadline - time.monotonic())

    def _failed(self, step: str, error: NotAnswered) -> Failed:
        advice = self.advice.get(error.code, "The SuperLink's log says more.")
        return Failed(f"{step}: {error}\n{advice}")


def tell(step: str, milliseconds: float) -> None:
    """Print how long a step took."""
    sys.stdout.write(f"{step:<28}{milliseconds:>9.1f} ms\n")
