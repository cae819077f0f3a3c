"""An agent's folder on a host: what is kept of it, what is undone, what is refused."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_runtime import Agent
from ray_runtime.testing import run_turn
from ray_runtime.workspace import Workspace
from schemas.problem import Refusal
from schemas.workspace import Folder, saved, wrong_path

ROOM = Folder(1000, 10, [])


def begun(root: Path, **files: bytes) -> Workspace:
    """A folder with these files in it; `__` is for a slash."""
    found = Workspace(root / "it")
    given = [saved(name.replace("__", "/"), body, executable=False) for name, body in files.items()]
    found.begin(Folder(1000, 10, given))
    return found


def contents(path: Path) -> dict[str, bytes]:
    return {it.relative_to(path).as_posix(): it.read_bytes() for it in path.rglob("*") if it.is_file()}


def test_what_a_turn_changed_is_what_is_written(tmp_path: Path) -> None:
    """New, other, gone; what was read, or written over with the same, is no change."""
    it = begun(tmp_path, same=b"1", other=b"2", gone=b"3", deep__down=b"4", again=b"5")
    (it.path / "same").read_bytes()
    (it.path / "other").write_bytes(b"x")
    (it.path / "gone").unlink()
    (it.path / "again").write_bytes(b"5")
    (it.path / "new").mkdir()
    (it.path / "new" / "file").write_bytes(b"y")
    files, gone = it.settle()
    assert [(it.path, it.body) for it in files] == [("new/file", b"y"), ("other", b"x")]
    assert gone == ["gone"]
    assert it.settle() == ([], [])
    (it.path / "new" / "file").chmod(0o755)
    assert [(it.path, it.executable) for it in it.settle()[0]] == [("new/file", True)]


SPOILS = {
    "same size": "printf 9 > a",
    "grown": "printf ! >> deep/down",
    "gone": "rm a",
    "all gone": "rm -r a deep",
    "a folder in its place": "rm a; mkdir a; touch a/b",
    "a file where a folder was": "rm -r deep; touch deep",
    "a link in its place": "ln -sf /etc/passwd a",
    "a link to a folder": "ln -s /etc out",
    "more": "touch more",
    "mode": "chmod 777 a",
    "empty folders": "mkdir -p empty/er",
}


@pytest.mark.parametrize("how", SPOILS)
def test_an_attempt_finds_what_was_committed(how: str, tmp_path: Path) -> None:
    """Whatever the last attempt left there, and did not commit."""
    it = begun(tmp_path, a=b"1", deep__down=b"2")
    subprocess.run(["/bin/sh", "-c", SPOILS[how]], cwd=it.path, check=True)
    it.begin(Folder(1000, 10))
    assert contents(it.path) == {"a": b"1", "deep/down": b"2"}
    assert sorted(found.name for found in it.path.iterdir()) == ["a", "deep"]
    assert it.settle() == ([], [])


def test_a_fresh_host_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    """Then an empty folder would be taken for the agent's."""
    with pytest.raises(FileNotFoundError):
        Workspace(tmp_path / "it").begin(Folder(1000, 10))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: (path / "link").symlink_to("/etc/passwd"), "INVALID_WORKSPACE"),
        (lambda path: (path / "folder").symlink_to("/etc"), "INVALID_WORKSPACE"),
        (lambda path: os.mkfifo(path / "pipe"), "INVALID_WORKSPACE"),
        (lambda path: (path / "new\nline").write_bytes(b""), "INVALID_WORKSPACE"),
        (lambda path: Path(os.fsdecode(os.fsencode(path) + b"/\xff")).write_bytes(b""), "INVALID_WORKSPACE"),
        (lambda path: (path / "large").write_bytes(bytes(1001)), "LIMIT_REACHED"),
        (lambda path: [(path / str(n)).write_bytes(b"") for n in range(11)], "LIMIT_REACHED"),
    ],
)
def test_what_can_not_be_kept_is_refused(spoil: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    """And nothing of it is committed: the next attempt finds what was there before."""
    it = begun(tmp_path, a=b"1")
    spoil(it.path)
    with pytest.raises(Refusal) as refused:
        it.settle()
    assert refused.value.problem.reason == reason
    it.begin(Folder(1000, 10))
    assert contents(it.path) == {"a": b"1"}


def _elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody else, beside those of the agents."""
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    for name in ("a", "deep/down", "theirs"):
        (other / name).write_bytes(b"theirs")
        (other / name).chmod(0o644)
    return other


def _state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        it.relative_to(folder).as_posix(): (it.read_bytes(), it.stat().st_mode, it.stat().st_mtime_ns)
        for it in folder.rglob("*")
        if it.is_file()
    }


@pytest.mark.parametrize("what", ["now", "kept", "deep", "."])
@pytest.mark.parametrize("then", ["settle", "begin", "begin anew", "remove"])
def test_a_link_in_place_of_a_folder_leads_nowhere(what: str, then: str, tmp_path: Path) -> None:
    """The workspace, a folder of it, and what it lies in: of what is elsewhere nothing is read, changed or removed."""
    it = begun(tmp_path, a=b"1", deep__down=b"2")
    other = _elsewhere(tmp_path)
    before = _state(other)
    place = {"now": it.path, "kept": it.path.parent / "kept", "deep": it.path / "deep", ".": it.path.parent}[what]
    shutil.rmtree(place)
    place.symlink_to(other)
    if what == ".":
        (other / "now").symlink_to(other)
        (other / "kept").symlink_to(other)
    if then == "settle":
        (it.path / "new").touch() if what == "kept" else None
        with pytest.raises(OSError if what == "kept" else Refusal) as refused:
            it.settle()
        if isinstance(refused.value, Refusal):
            assert refused.value.problem.reason == "INVALID_WORKSPACE"
    elif then == "begin" and what in ("now", "deep"):
        it.begin(Folder(1000, 10))
        assert contents(it.path) == {"a": b"1", "deep/down": b"2"}
        assert it.settle() == ([], [])
    elif then == "begin":
        with pytest.raises(FileNotFoundError):
            it.begin(Folder(1000, 10))
    elif then == "begin anew":
        it.begin(Folder(1000, 10, [saved("a", b"3", executable=False)]))
        assert contents(it.path) == {"a": b"3"}
        assert not it.path.is_symlink()
    else:
        it.remove()
        assert not os.path.lexists(it.path.parent)
    assert _state(other) == before


def test_a_folder_that_the_turn_took_away_is_an_empty_one(tmp_path: Path) -> None:
    it = begun(tmp_path, a=b"1")
    shutil.rmtree(it.path)
    assert it.settle() == ([], ["a"])
    it.begin(Folder(1000, 10))
    assert contents(it.path) == {}


def test_a_file_that_has_another_name_elsewhere_is_kept_as_a_copy(tmp_path: Path) -> None:
    """Mode and time by which it is seen that it is as committed are not given to what the other name leads to."""
    other = _elsewhere(tmp_path)
    before = _state(other)
    it = begun(tmp_path, a=b"1")
    os.link(other / "theirs", it.path / "mine")
    files, _ = it.settle()
    assert [(it.path, it.body) for it in files] == [("mine", b"theirs")]
    (it.path / "mine").write_bytes(b"other")
    assert _state(other) == before


def test_folders_that_lead_too_deep_are_refused_and_undone(tmp_path: Path) -> None:
    """None is entered beyond what a path may have."""
    it = begun(tmp_path, a=b"1")
    (it.path / "/".join(["d" * 60] * 10)).mkdir(parents=True)
    with pytest.raises(Refusal):
        it.settle()
    it.begin(Folder(1000, 10))
    assert sorted(found.name for found in it.path.iterdir()) == ["a"]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a\\b", "a\x00", "x" * 501])
def test_paths_that_lead_elsewhere(path: str) -> None:
    assert wrong_path(path) is not None


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"])
STEPS = st.lists(st.tuples(NAMES, st.one_of(st.none(), st.binary(max_size=4)), st.sampled_from(["", "end", "again"])))


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_what_is_sent_makes_the_same_folder_elsewhere(
    steps: list[tuple[str, bytes | None, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By the changes of each turn alone; what a failed attempt wrote is in none of them."""
    it = begun(tmp_path_factory.mktemp("one"))
    elsewhere: dict[str, bytes] = {}
    for name, body, then in [*steps, ("a", None, "end")]:
        place = it.path / name
        if body is None:
            place.unlink(missing_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(body)
        if then == "end":
            files, gone = it.settle()
            elsewhere = {path: body for path, body in elsewhere.items() if path not in gone}
            elsewhere |= {it.path: it.body for it in files}
            assert contents(it.path) == elsewhere == it.contents()
            it.begin(Folder(1000, 10))
        elif then == "again":
            it.begin(Folder(1000, 10))
            assert contents(it.path) == elsewhere


class Writer(Agent):
    async def on_message(self, turn, envelope):  # type: ignore[no-untyped-def]
        notes = turn.workspace / "notes.txt"
        notes.write_text((notes.read_text() if notes.exists() else "") + f"{envelope.data}\n")
        await turn.sleep(60)
        return len(notes.read_text())


def test_a_turn_with_a_folder_is_tested_like_any_other() -> None:
    """With what is there before; the replay writes the same."""
    done = run_turn(Writer, "two", workspace={"notes.txt": b"one\n"})
    assert (done.reply, done.workspace) == (8, {"notes.txt": b"one\ntwo\n"})
    refused = run_turn(Writer, "one").problem
    assert refused is not None
    assert (refused.reason, refused.field) == ("INVALID_VALUE", "/spec/workspace")
