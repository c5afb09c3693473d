"""`superlink-trio check`: what would keep a SuperLink from starting, without starting it."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from certificates import Authority
from postgresql import the_server

from superlink_trio import cli
from superlink_trio.state import SqliteState


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SUPERLINK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def taken() -> Iterator[str]:
    """An address where another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


HERE = ("--driver-api-address", "127.0.0.1:0", "--grpc-rere-fleet-api-address", "127.0.0.1:0")


def faults(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Check what has faults, and give them."""
    assert cli.main(["check", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    *lines, last = told.err.splitlines()
    assert last == "superlink-trio check: nothing was started; --help-all lists the options"
    start = "superlink-trio check: error: "
    return [line.removeprefix(start) for line in lines if line.startswith(start)]


def sound(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Check what is sound, and give the one line that says so."""
    assert cli.main(["check", *words]) == 0
    told = capsys.readouterr()
    [line] = told.out.splitlines()
    assert told.err == ""
    _, found, what = line.partition("the configuration is sound: ")
    assert found
    return what


def test_what_is_sound_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert sound(capsys, *HERE) == (
        "state in memory, the Driver API on 127.0.0.1:0, the Fleet API on 127.0.0.1:0"
    )


def test_nothing_is_made_and_no_port_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database, port = tmp_path / "state.db", free_port()
    words = [*HERE, "--admin-address", f"127.0.0.1:{port}", "--database", str(database)]
    told = sound(capsys, *words)
    assert told.startswith(f"database {database} (no schema yet), ")
    assert told.endswith(f", the admin surface on 127.0.0.1:{port}")
    assert not list(tmp_path.iterdir())
    with socket.create_server(("127.0.0.1", port)):
        pass


async def served_once(path: Path) -> None:
    state, stopping = SqliteState(str(path)), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        stopping.set()


def test_a_database_has_a_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.db"
    trio.run(served_once, path)
    before = path.read_bytes()
    assert f"database {path} (schema " in sound(capsys, *HERE, "--database", str(path))
    assert path.read_bytes() == before


def test_a_side_alone_is_checked_as_such(
    tmp_path: Path, taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "fleet-api"]) == 2
    told = capsys.readouterr().err
    assert "superlink-trio check fleet-api: error: :flwr-in-memory-state: cannot be" in told
    # The other side's address is none of its business.
    file = tmp_path / "superlink.toml"
    file.write_text(
        f"driver-api-address = '{taken}'\ngrpc-rere-fleet-api-address = '127.0.0.1:0'\n"
        f"database = '{tmp_path / 'state.db'}'\n"
    )
    assert cli.main(["check", "fleet-api", "--config", str(file)]) == 0
    assert "the Fleet API on 127.0.0.1:0\n" in capsys.readouterr().out
    [fault] = faults(capsys, "--config", str(file))
    assert fault.startswith(f"{file}: driver-api-address: cannot listen on {taken}: ")


def test_every_fault_is_listed(
    tmp_path: Path, taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "state.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE superlink_schema(version)")
        connection.execute("INSERT INTO superlink_schema VALUES (99)")
    Authority(tmp_path).issue()
    (tmp_path / "server.pem").write_text("Dear diary")
    files = [str(path) for path in Authority(tmp_path).files]
    told = faults(
        capsys,
        *("--hold", "soon", "--driver-api-address", "127.0.0.1:0", "--certificates", *files),
        *("--database", str(database), "--grpc-rere-fleet-api-address", taken),
        *("--admin-address", "192.0.2.1:80", "--vce", "--rest"),
    )
    wanted = [
        "--hold: 'soon' is no number of seconds",
        "--vce and --rest disagree: leave one out",
        f"--certificates: {tmp_path / 'server.pem'}",
        f"--database: The database {database} was written by a newer release",
        "--admin-address: cannot listen on 192.0.2.1:80: Cannot assign requested address",
    ]
    assert len(told) == len(wanted), "what a fault leaves unclear is not tried"
    assert all(line.startswith(start) for line, start in zip(told, wanted, strict=True))


def test_an_address_that_is_taken_is_a_fault(
    taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [fault] = faults(capsys, "--driver-api-address", taken, *HERE[2:])
    assert fault == (
        f"--driver-api-address: cannot listen on {taken}: Address already in use (another program "
        "listens there: stop it, or choose another port)"
    )


def test_apps_lie_in_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*HERE[:2], "--vce", "--client-app", "client:app", "--num-supernodes", "1"]
    words += ["--backend", "process", "--app-dir", str(tmp_path / "apps")]
    assert faults(capsys, *words) == [f"--app-dir: {tmp_path / 'apps'} is no directory"]
    (tmp_path / "apps").mkdir()
    assert sound(capsys, *words) == "state in memory, the Driver API on 127.0.0.1:0"


def test_certificates_that_are_sound_are_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Authority(tmp_path).issue()
    files = [str(path) for path in Authority(tmp_path).files]
    assert sound(capsys, *HERE, "--certificates", *files)
    (tmp_path / "server.key").unlink()
    [fault] = faults(capsys, *HERE, "--certificates", *files)
    assert fault.startswith(f"--certificates: {tmp_path / 'server.key'}")


def test_what_is_only_tried_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(capsys, *HERE, "--print-config") == [
        "--print-config: no such option; did you mean --config?"
    ]


def test_a_warning_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", *HERE, "--storage-dir", "fabs"]) == 0
    told = capsys.readouterr()
    assert told.err == (
        "superlink-trio check: warning: --storage-dir: not used, fabs are kept in the database\n"
    )


def test_a_database_in_use_can_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.db"

    async def beside_one_that_runs() -> str:
        state, stopping = SqliteState(str(path)), trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: state.serve(stopping=stopping, task_status=task_status)
            )
            what = await trio.to_thread.run_sync(
                lambda: sound(capsys, *HERE, "--database", str(path))
            )
            assert await state.create_node(30.0), "it goes on"
            stopping.set()
        return what

    assert "schema" in trio.run(beside_one_that_runs)


def test_a_server_is_looked_into_and_nothing_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    url = the_server().new_schema()
    for _ in range(2):
        told = sound(capsys, *HERE, "--database", url)
        assert "database PostgreSQL (no schema yet), " in told
    [fault] = faults(capsys, *HERE, "--database", f"{url}&host=/gone&password=s3cret")
    assert "cannot be reached: start it, or check the network" in fault
    assert "s3cret" not in fault
