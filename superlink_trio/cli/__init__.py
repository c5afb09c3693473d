"""The programs: command lines, signals, exit statuses, what a terminal shows.

`main` is `superlink-trio`; `driver_api` and `fleet_api` run one side of it each.
"""

from superlink_trio.cli.commands import driver_api, fleet_api, main

__all__ = ["driver_api", "fleet_api", "main"]
