from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from superlink_trio.logs import live, rendering
from superlink_trio.logs.throttle import BURST, MAX_LENGTH

logger = logging.getLogger("superlink_trio.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.delenv("NO_COLOR", raising=False)
    root, package = logging.getLogger(), logging.getLogger("superlink_trio")
    handlers, levels = root.handlers[:], (root.level, package.level)
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])


def test_text_is_time_level_message() -> None:
    out = io.StringIO()
    rendering.configure("info", "text", out)
    logger.info("node %d came", 7, extra={"node_id": 7})
    time, level, message = out.getvalue().split(maxsplit=2)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(time)) < timedelta(minutes=1)
    assert time.endswith("Z")
    assert (level, message) == ("info", "node 7 came\n"), "the extra fields are not repeated"


def test_a_level_hides_what_is_below() -> None:
    out = io.StringIO()
    rendering.configure("warning", "text", out)
    logger.info("hidden")
    logger.warning("shown")
    assert "hidden" not in out.getvalue()
    assert "shown" in out.getvalue()


def test_other_packages_are_only_heard_when_something_is_wrong() -> None:
    out = io.StringIO()
    rendering.configure("debug", "text", out)
    logging.getLogger("asyncio").info("using a selector")
    logging.getLogger("asyncio").warning("slow callback")
    logger.debug("ours")
    assert "selector" not in out.getvalue()
    assert "slow callback" in out.getvalue()
    assert "ours" in out.getvalue()


def test_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    rendering.configure("info", "text", first)
    rendering.configure("info", "text", second)
    logger.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, plain, refusing = Terminal(), io.StringIO(), Terminal()
    for out in (terminal, plain):
        rendering.configure("info", "text", out)
        logger.warning("careful")
    monkeypatch.setenv("NO_COLOR", "1")
    rendering.configure("info", "text", refusing)
    logger.warning("careful")
    assert "\x1b[33mwarning" in terminal.getvalue()
    assert "\x1b" not in plain.getvalue() + refusing.getvalue()


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_shown_with_its_message(style: str) -> None:
    out = io.StringIO()
    rendering.configure("info", style, out)  # type: ignore[arg-type]  # parametrized
    with pytest.raises(ExceptionGroup) as caught:
        raise ExceptionGroup("several", [KeyError("one"), ValueError("two")])
    logger.error("it failed", exc_info=caught.value)
    text = out.getvalue() if style == "text" else json.loads(out.getvalue())["exception"]
    assert "Traceback" in text
    assert "KeyError: 'one'" in text
    assert "ValueError: two" in text


def test_text_cannot_be_forged_by_what_clients_say() -> None:
    out = io.StringIO()
    rendering.configure("info", "text", out)
    logger.info("refused: %s", "no\n2026-01-01T00:00:00.000Z error forged \x1b[2J\x9b\u2028")
    assert out.getvalue().splitlines()[0].endswith(r"forged \x1b[2J\x9b\u2028")
    assert len(out.getvalue().splitlines()) == 1


def test_json_has_the_extra_fields() -> None:
    out = io.StringIO()
    rendering.configure("info", "json", out)
    logger.warning("node %d left", 7, extra={"node_id": 7, "why": ValueError("x")})
    entry = json.loads(out.getvalue())
    assert datetime.fromisoformat(entry.pop("timestamp")).tzinfo == UTC
    assert entry == {
        "level": "warning",
        "logger": "superlink_trio.test",
        "event": "node 7 left",
        "node_id": "7",
        "why": "ValueError('x')",
    }


# What logging itself refuses as a name, and the one that records have from Python 3.12 on.
reserved = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
names = st.text(min_size=1).filter(lambda name: name not in reserved and not name.startswith("_"))


@given(st.text(), st.dictionaries(names, st.text()))
def test_json_is_an_object_a_line_whatever_it_is_told(message: str, extra: dict[str, str]) -> None:
    out = io.StringIO()
    rendering.configure("info", "json", out)
    logger.info("%s", message, extra=extra | {"level": "forged", "event": "forged"})
    [line] = out.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["event"]) == ("info", message)
    own = {"level", "event", "logger", "timestamp"}
    assert {name: entry[name] for name in extra.keys() - own} == {
        name: extra[name] for name in extra.keys() - own
    }


def test_what_strangers_make_grpc_log_is_bounded() -> None:
    out = io.StringIO()
    rendering.configure("info", "text", out)
    library = logging.getLogger("grpc._cython.cygrpc")
    for _ in range(1000):
        library.error("Invalid encoding on %s", "x" * 100_000)
    logger.info("ours")
    *lines, last = out.getvalue().splitlines()
    assert len(lines) == BURST
    assert max(map(len, lines)) < MAX_LENGTH + 100
    assert last.endswith("ours")


def test_grpc_does_not_write_past_the_log() -> None:
    script = (
        "import os, sys; from superlink_trio.logs import rendering; rendering.configure();"
        "print(os.environ['GRPC_VERBOSITY'], 'grpc' in sys.modules)"
    )

    def told(**environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": ":".join(sys.path), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    assert told() == "NONE False"
    assert told(GRPC_VERBOSITY="DEBUG") == "DEBUG False"


def test_a_terminal_that_is_shared_gets_whole_lines_in_colours() -> None:
    out = io.StringIO()
    console = Console(force_terminal=True, file=out, color_system="standard")
    rendering.configure("info", "text", live.Terminal(out, console))
    long = "be [bold]careful[/bold] " + "x" * 200
    logger.warning(long)
    [line] = out.getvalue().splitlines()
    assert "\x1b[33mwarning" in line
    assert long in line


def test_an_exception_that_is_told_follows_its_line() -> None:
    out = io.StringIO()
    rendering.configure("info", "text", out)
    logger.error("no app", extra={"exception": "Traceback\n  a\x1b[0m\nValueError: no"})
    first, *rest = out.getvalue().splitlines()
    assert first.endswith("no app")
    assert rest == ["Traceback", "  a\\x1b[0m", "ValueError: no"]


def test_an_exception_that_is_told_is_a_field() -> None:
    out = io.StringIO()
    rendering.configure("info", "json", out)
    logger.error("no app", extra={"exception": "Traceback\nValueError: no"})
    assert json.loads(out.getvalue())["exception"] == "Traceback\nValueError: no"
