"""What people are told: log lines in bounds, their wording, and how they look."""

from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.logs.wording import counted, described, leaves

__all__ = ["Throttle", "counted", "described", "leaves", "shorten"]
