"""What is on a node that is not the gate's: nobody else's, and nothing of it afterwards."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.guard.certificates import listener
from ray_runtime import relay as relaying
from ray_runtime.node_folder import folder_of, of_this_task, private, put_away
from ray_runtime.relay import Relay
from schemas.frames import Home
from schemas.processes import started
from tests.gate.running import true


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_both_folders_are_closed_to_others(tmp_path: Path) -> None:
    """Those that were open are closed; another one's, or a link to one, is not used."""
    folder = folder_of(tmp_path / "steward-1" / "gate.sock", "a" * 56)
    assert private(folder) == folder
    assert [mode(it) for it in (folder, folder.parent)] == [0o700, 0o700]
    folder.parent.chmod(0o755)
    private(folder)
    assert mode(folder.parent) == 0o700


@pytest.mark.parametrize("above", [True, False])
def test_what_is_another_users_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: bool) -> None:
    """Whoever has made the folder first, or the one above it, or a link in its place."""
    folder = tmp_path / "steward-1" / "n-1"
    folder.mkdir(parents=True, mode=0o700)
    theirs = folder.parent if above else folder
    if os.geteuid() == 0:
        os.chown(theirs, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="another user"):
        private(folder)
    if os.geteuid() == 0:
        shutil.rmtree(theirs)
        (tmp_path / "mine" / "n-1").mkdir(parents=True)
        theirs.symlink_to(tmp_path / "mine" / ("" if above else "n-1"))
        os.lchown(theirs, 12345, 12345)
        with pytest.raises(PermissionError, match="another user"):
            private(folder)


def left_by(folder: Path, process: "subprocess.Popen[bytes] | None" = None) -> Path:
    """The code of a function that this process runs, or another one."""
    path = of_this_task(folder)
    if process is not None:
        path = path.with_name(f"{process.pid}-{started(process.pid):.2f}")
    path.mkdir(parents=True)
    (path / "jobs.py").write_text("SECRET = 1")
    return path


def test_what_a_killed_worker_left_is_put_away(tmp_path: Path) -> None:
    """Once its process has ended, and not before."""
    folder = private(tmp_path / "steward-1" / "n-1")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        ours, theirs = left_by(folder), left_by(folder, worker)
        put_away(folder)
        assert ours.exists()
        assert theirs.exists()
        worker.kill()
    put_away(folder)
    assert list((folder / "tasks").iterdir()) == [ours]
    put_away(tmp_path)


@pytest.mark.anyio
async def test_a_relay_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts away what workers leave while it is there, and at its end all of its own; what is others' stays."""
    monkeypatch.setattr(relaying, "TIDY_S", 0.02)
    home = Home("127.0.0.1", 9, "key", listener()[1])
    for shared in (False, True):
        folder = private(tmp_path / "steward-1" / "n-1")
        dead = folder / "tasks" / "1-0.5"
        dead.mkdir(parents=True)
        relay = Relay(folder, "1", home)
        serving = asyncio.create_task(relay.serve())
        await true(lambda dead=dead, path=folder / "gate.sock": path.exists() and not dead.exists())  # type: ignore[misc]
        left_by(folder)
        other = folder.parent / "n-2"
        if shared:
            other.mkdir()
        relay.end()
        await asyncio.wait_for(serving, 10)
        assert not folder.exists()
        assert folder.parent.exists() == shared
