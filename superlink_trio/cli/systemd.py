"""What systemd and a service tell each other: news, a fed watchdog, and sockets that are open.

All of it goes by the environment: without its variables nothing happens. They are taken out of
it, so that no process which is started from here thinks that they are its own.

Source: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TypeAlias

import attrs

from superlink_trio.config import Address, Apis, Settings
from superlink_trio.config.reading import Setting

_log = logging.getLogger(__name__)

Sockets: TypeAlias = Mapping[str, Sequence[socket.socket]]
"""Sockets that listen already, by the options whose address they are."""

_FIRST_FD = 3  # SD_LISTEN_FDS_START

# What has the highest rank of all sources: a socket that is open cannot be anywhere else.
_RANK = 3

# The addresses that may be sockets of systemd, by their options.
_REST, _ADMIN = "rest_fleet_api_address", "admin_address"
_PORT, _CONTROL = "port", "control_address"
_GRPC = ("driver_api_address", "grpc_rere_fleet_api_address", "control_grpc_address")

# Under which other options an address may have been given, and what its sockets are served as.
_ALSO = {_REST: ("fleet_api_address",), _PORT: ("host",)}
_SERVED_AS = {_PORT: "host"}

# How long news may wait where systemd is too busy to take it, in seconds.
_PATIENCE = 1.0


@attrs.define
class Manager:
    """The service manager, as far as it wants to hear of this process."""

    address: str | None = None
    """Its datagram socket, as NOTIFY_SOCKET names it; None: nobody wants to hear anything."""
    watchdog: float | None = None
    """Seconds without a beat after which it takes this process for one that hangs."""
    _told_of_failure: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Manager:
        """Take what the environment says of it."""
        address = environ.pop("NOTIFY_SOCKET", None)
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        mine = microseconds.isdecimal() and int(microseconds) > 0 and pid == str(os.getpid())
        return cls(address or None, int(microseconds) / 1e6 if mine else None)

    def ready(self, status: str) -> None:
        """Say that everything listens, for the first time or after a reload."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun; `ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def status(self, words: str) -> None:
        """Say what `systemctl status` is to show."""
        self._tell(f"STATUS={words}")

    async def feed(self) -> None:
        """Feed the watchdog until cancelled.

        A task like any other: where the loop stalls, nothing is fed.
        """
        import trio

        while self.watchdog is not None:
            # A beat that finds no room is followed by another one.
            self._tell("WATCHDOG=1", patience=0.0)
            await trio.sleep(self.watchdog / 2)

    def _tell(self, *lines: str, patience: float = _PATIENCE) -> None:
        if self.address is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(patience)
                sender.connect(_unix_address(self.address))
                sender.send(text.encode())
        except OSError as error:
            level = logging.DEBUG if self._told_of_failure else logging.WARNING
            self._told_of_failure = True
            _log.log(level, "Cannot tell systemd at %s anything: %s", self.address, error)


def _unix_address(name: str) -> str:
    if name.startswith("/"):
        return name
    if name.startswith("@"):
        return f"\0{name[1:]}"
    raise OSError("NOTIFY_SOCKET is neither a path nor an abstract name that begins with @")


@attrs.frozen
class Inherited:
    """The sockets that this process was started with."""

    sockets: Mapping[str, Sequence[socket.socket]] = attrs.field(factory=dict)
    """By the names that they were given (FileDescriptorName=)."""
    faults: Sequence[str] = ()
    """What else was there, and is no socket."""


def take_sockets(environ: MutableMapping[str, str]) -> Inherited:
    """Take the sockets that systemd has opened for this process; its children do not get them."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return Inherited()
    given: dict[str, list[socket.socket]] = {}
    faults = []
    for index in range(int(count)):
        number = _FIRST_FD + index
        name = names[index] if index < len(names) else ""
        try:
            os.set_inheritable(number, False)
            given.setdefault(name, []).append(socket.socket(fileno=number))
        except OSError as error:
            faults.append(f"systemd's file {number}, {name!r}, is no socket: {error.strerror}")
    return Inherited(given, faults)


def adopt(settings: Settings, inherited: Inherited, apis: Apis) -> Sockets:
    """Let sockets be what options say; give those that can be served.

    Whatever cannot be served is a fault: connections to it would wait for ever.
    """
    adopted = {}
    settings.faults += inherited.faults
    for name, sockets in inherited.sockets.items():
        option = name.replace("-", "_")
        problem = _problem(settings, option, sockets, apis)
        if problem is not None:
            settings.fault(f"systemd's socket {name!r} {problem}")
            continue
        addresses = list(map(_address, sockets))
        # What others can reach has to be secured, whatever else is there.
        address = next((one for one in addresses if not one.loopback), addresses[0])
        values: Mapping[str, object] = {option: address}
        if option == _PORT:
            values = {"host": address.host, "port": address.port}
        for each, value in values.items():
            settings.given[each] = Setting(value, f"systemd's socket {name!r}", _RANK)
        adopted[_SERVED_AS.get(option, option)] = sockets
    return adopted


def _problem(
    settings: Settings, option: str, sockets: Sequence[socket.socket], apis: Apis
) -> str | None:
    if option in _GRPC:
        return (
            "is for gRPC, which opens its ports itself: take it out of the .socket unit, and give "
            f"the address by --{option.replace('_', '-')}"
        )
    if option not in (_REST, _ADMIN, _PORT, _CONTROL):
        return (
            "is for nothing that is known: let FileDescriptorName= in its .socket unit be port, "
            "control-address, rest-fleet-api-address or admin-address"
        )
    if option in (_PORT, _CONTROL) and apis is not Apis.BOTH:
        return "is for today's Flower, which superlink-trio serves without driver-api or fleet-api"
    if option == _REST and (Apis.FLEET not in apis or settings.get("fleet_api_type") != "rest"):
        return "is for a Fleet API over REST, and none is to run: give --rest"
    if not all(map(_listens_on_tcp, sockets)):
        return "is no TCP socket that listens: ListenStream= in its .socket unit has to be a port"
    for name in (option, *_ALSO.get(option, ())):
        if name in settings.given:
            source = settings.given[name].source
            return f"and {source} both say where to listen: leave one out"
    return None


def _listens_on_tcp(given: socket.socket) -> bool:
    return (
        given.family in (socket.AF_INET, socket.AF_INET6)
        and given.type == socket.SOCK_STREAM
        and given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    )


def _address(given: socket.socket) -> Address:
    host, port, *_ = given.getsockname()
    return Address(host, port)
