"""A SuperLink that is killed under load loses nothing that it acknowledged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples import fewer

pytestmark = pytest.mark.once

_SCRIPT = Path(__file__).parents[1] / "scripts" / "crash"

_KEPT = "CREATE TRIGGER kept_{0} BEFORE DELETE ON {0} BEGIN SELECT RAISE(IGNORE); END;"

# How a database may break its promises, the options that show it, and what is said of it.
_SABOTAGE = {
    "an acknowledged answer is lost": (
        """CREATE TRIGGER lose AFTER UPDATE OF answer_id ON superlink_task
            WHEN new.answer_id IS NOT NULL AND abs(random()) % 5 = 0 BEGIN
            DELETE FROM task_res WHERE task_id = new.answer_id;
            UPDATE superlink_task SET answer_id = NULL, answer_size = NULL, phase = 0
                WHERE task_id = new.task_id; END;""",
        ("--kills", "1"),
        "was handed out again: its acknowledged answer is lost",
    ),
    "an acknowledged task is lost": (
        """CREATE TRIGGER lose AFTER INSERT ON superlink_task BEGIN
            DELETE FROM task_ins WHERE task_id = new.task_id; END;""",
        ("--kills", "0", "--patience", "1"),
        " is lost",
    ),
    "an answer is given twice": (
        """CREATE TRIGGER repeat AFTER UPDATE OF collected ON superlink_task
            WHEN new.collected = 1 BEGIN
            UPDATE superlink_task SET collected = 0, answer_holder = NULL
                WHERE task_id = new.task_id; END;""",
        ("--kills", "1"),
        "was answered twice",
    ),
    "an answer is given twice, long after": (
        _KEPT.format("task_ins") + _KEPT.format("task_res"),
        ("--kills", "1"),
        "was answered twice",
    ),
    "a confirmation is lost": (
        """CREATE TRIGGER lose BEFORE UPDATE OF phase ON superlink_message WHEN new.phase = 3 BEGIN
            SELECT RAISE(IGNORE); END;""",
        ("--today", "--kills", "1"),
        "was handed out again: its acknowledged answer is lost",
    ),
    "an acknowledged object is lost": (
        """CREATE TRIGGER lose AFTER UPDATE OF phase ON superlink_message
            WHEN new.phase = 1 AND new.asked IS NULL AND abs(random()) % 5 = 0 BEGIN
            UPDATE superlink_object SET content = NULL WHERE number = new.root; END;""",
        ("--today", "--kills", "1"),
        " is lost",
    ),
    "a reply is given twice": (
        _KEPT.format("superlink_message"),
        ("--today", "--kills", "1"),
        "was answered twice",
    ),
}


def crash(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(_SCRIPT), *options], check=False, text=True, capture_output=True
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "options",
    [(), ("--apart",), ("--today",)],
    ids=["one process", "two processes", "messages"],
)
def test_kills_lose_nothing(options: tuple[str, ...]) -> None:
    kills = fewer(5, 1)
    done = crash("--kills", str(kills), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(rf"{kills} kills; \d+ runs, 4 nodes, ", done.stdout)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", _SABOTAGE)
def test_what_is_lost_is_found(tmp_path: Path, fault: str) -> None:
    sql, options, said = _SABOTAGE[fault]
    sabotage = tmp_path / "sabotage.sql"
    sabotage.write_text(sql)
    done = crash(*options, "--sabotage", str(sabotage))
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
