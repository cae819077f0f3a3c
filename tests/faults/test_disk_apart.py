"""A disk of PostgreSQL without room, files that may no longer be written, and folders that never could be."""

import asyncio
import contextlib
import pwd
import resource
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest

from schemas.problem import Problem, Refusal
from tests.faults.test_planes_apart import second, until
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE
from tests.stack import STEWARD, Stack

pytestmark = pytest.mark.anyio
DISK_BYTES = 4_194_304
SENT_MAX = 1_500
SHUT = """
CREATE FUNCTION shut() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER shut BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION shut();
"""
OPENED = "DROP TRIGGER IF EXISTS shut ON inbox; DROP FUNCTION IF EXISTS shut"
Switches = tuple[Callable[[], Any], Callable[[], Any]]  # which leave no room, and make room


def _admin(url: str, *statements: Any) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for sql in statements:
            connection.execute(sql)


@contextlib.contextmanager
def _small_disk(url: str) -> Iterator[Switches]:
    """Inboxes lie on a disk of their own; where nobody may mount one, a trigger stands in and says what it would."""
    folder = Path(tempfile.mkdtemp(prefix="stpg-disk-"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        if not _mounted(folder):
            undo.callback(_admin, url, OPENED)
            yield lambda: _admin(url, SHUT), lambda: _admin(url, OPENED)
            return
        undo.callback(subprocess.run, ["umount", folder], check=True)
        place = (folder / "small").as_posix()
        _admin(url, f"CREATE TABLESPACE small LOCATION '{place}'", "ALTER TABLE inbox SET TABLESPACE small")
        undo.callback(_admin, url, "ALTER TABLE inbox SET TABLESPACE pg_default", "DROP TABLESPACE small")
        yield lambda: _fill(folder / "filler"), (folder / "filler").unlink


def _mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "tmpfs", folder]
    with contextlib.suppress(OSError, KeyError):
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            (folder / "small").mkdir(mode=0o700)
            shutil.chown(folder / "small", pwd.getpwnam("pgserver").pw_uid)
            return True
    return False


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))


@contextlib.contextmanager
def _shut_files(path: Path, pid: int) -> Iterator[Switches]:
    """Nobody may write the files of SQLite; where the file system knows no such mark, the process may write no file."""
    files = [path, path.with_name(path.name + "-wal")]  # the third is memory that SQLite's processes share

    def mark(sign: str) -> int:
        return subprocess.run(["chattr", f"{sign}i", *files], check=False, capture_output=True).returncode

    if shutil.which("chattr") and mark("+") == 0:
        mark("-")
        try:
            yield lambda: mark("+"), lambda: mark("-")
        finally:
            mark("-")
    else:
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        yield (
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard)),
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard)),
        )


async def _refused(gate: RunningGate, sent: list[str], *, until: bool) -> list[Problem]:
    """Send until one is refused, or goes through again; answers the refusals."""
    found: list[Problem] = []
    for _ in range(SENT_MAX):
        message_id = f"m{len(sent)}"
        sent.append(message_id)
        try:
            await gate.send("echo", secrets.token_hex(3_000), message_id)
        except Refusal as refusal:
            found.append(refusal.problem)
        if bool(found) == until:
            return found
    raise AssertionError("the store always had room")


async def _no_room_and_room(gate: RunningGate, switches: Switches) -> None:
    shut, opened = switches
    code = await gate.code(SOURCE)
    await gate.agent("echo", code, "Echo")
    sent: list[str] = []
    await _refused(gate, sent, until=False)
    await asyncio.to_thread(shut)
    (problem,) = await _refused(gate, sent, until=True)
    assert (problem.reason, problem.recovery, problem.changed) == ("STORAGE_FULL", "wait", "none"), problem
    assert problem.retry_after_s
    await true(lambda: "goes on by itself" in gate.client.trouble)
    assert await gate.rows("SELECT name FROM agent") == [("echo",)]
    await asyncio.to_thread(opened)
    await true(lambda: not gate.client.trouble)
    for message_id in sent:
        await gate.send("echo", "again", message_id)
    handled = "SELECT message_id FROM turn WHERE outcome = 'committed' AND message_id LIKE 'm%'"
    rows = await gate.until(handled, lambda rows: len(rows) >= len(sent) + 1, 30)  # the first is its start's
    assert sorted(it for (it,) in rows if not it.startswith("msg")) == sorted(sent)
    recovered = await gate.rows("SELECT data FROM event WHERE type = 'storage.recovered'")
    assert len(recovered) == 1
    assert "STORAGE_FULL" in recovered[0][0]


async def test_a_disk_of_postgresql_without_room(postgresql_url: str) -> None:
    """SQLSTATE 53100: refused with a wait, told to planes, nothing lost; and with room all goes on by itself."""
    with _small_disk(postgresql_url) as switches:
        async with running(postgresql_url) as gate:
            await _no_room_and_room(gate, switches)


async def test_files_that_may_no_longer_be_written(sqlite_url: str) -> None:
    """The same, when somebody takes from SQLite's files that they may be written, and gives it back."""
    async with running(sqlite_url) as gate:
        assert gate.gate is not None
        with _shut_files(Path(sqlite_url.removeprefix("sqlite:///")), gate.gate.pid) as switches:
            await _no_room_and_room(gate, switches)


@pytest.mark.parametrize("below", ["/sys", "a file"])
def test_a_folder_that_can_not_be_written(tmp_path: Path, below: str) -> None:
    """`up` says which path, why, and what to do; nothing of a traceback, and 1."""
    (tmp_path / "a file").touch()
    data = Path("/sys/steward") if below == "/sys" else tmp_path / "a file" / "data"
    done = subprocess.run(
        [str(STEWARD), "up", "--data", str(data), "--port", "0"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "DATA_UNWRITABLE" in said
    assert str(data) in said
    assert "--data" in said
    assert "Traceback" not in said


def test_a_gate_that_can_not_start_is_told() -> None:
    """Its database can not be opened: who asks hears that it ends, the log of what; it starts when it can."""
    stack = Stack()
    (stack.data / "steward.db").mkdir(mode=0o700, parents=True)
    process = second(stack, stack.data)
    try:
        until(lambda: (stack.data / "plane.json").exists())
        url = orjson.loads((stack.data / "plane.json").read_bytes())["url"]

        def told() -> str:
            problem = httpx.get(f"{url}/v1/system/status", headers={"Authorization": "Bearer any"}).json()
            assert (problem["reason"], problem["recovery"]) == ("NOT_READY", "wait"), problem
            return str(problem["detail"])

        until(lambda: "The gate ended" in told())
        assert "gate.out" in told()
        assert "unable to open database file" not in told()  # no token was good yet
        assert "unable to open database file" in (stack.data / "logs" / "plane.log").read_text()
        (stack.data / "steward.db").rmdir()
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
    finally:
        process.terminate()
        process.communicate(timeout=60)
        stack.close()
