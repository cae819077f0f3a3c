"""An agent's folder on this host: as it was committed at the start of a turn, looked through at its end.

What a turn changed and did not commit is undone before the next attempt, as with its state. Files that are
as they were committed carry one fixed time, so that whatever was written to since then is seen by its own,
and nothing else need be read. A second copy stands beside the folder, to go back to. Only regular files are
kept, with whether they can be executed; folders exist by their files.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ray_runtime.problems import refuse
from schemas.workspace import Fault, Folder, Saved, over, saved, unfit_paths

AS_COMMITTED_NS = 946_684_800 * 10**9  # the year 2000: the time of files that nobody wrote to since
Look = tuple[int, int, int, bool]  # inode, size, time of the last change, executable


class Workspace:
    """The folder of one agent; `path` is what its handlers see."""

    def __init__(self, root: Path) -> None:
        self.path = root / "now"
        self._kept = root / "kept"
        self._root = root
        self._files: dict[str, tuple[str, bool, Look]] = {}  # as committed: digest, executable, how it looks
        self._limits = Folder(0, 0)
        self._touched = False  # whether a turn has had it since it was as committed

    def begin(self, folder: Folder) -> None:
        """As it was committed: from what came with the turn, or back from what the last attempt left.

        Raises OSError when it can not be written, or nothing came and nothing is here.
        """
        self._limits = Folder(folder.bytes_max, folder.files_max)
        if folder.files is not None:
            self.remove()
            self.path.mkdir(parents=True, mode=0o700)
            self._kept.mkdir(mode=0o700)
            self._take(folder.files, self._kept, self.path)
        elif not self._kept.is_dir():
            raise FileNotFoundError("its files did not come with the turn")
        elif self._touched:
            self._back()
        self._touched = True

    def settle(self) -> tuple[list[Saved], list[str]]:
        """What is new or other than before, and what is gone: from now on, what an attempt goes back to.

        Raises INVALID_WORKSPACE for what is no regular file or has no proper path, LIMIT_REACHED, and OSError.
        """
        files, gone = self._changes()
        for path in gone:
            del self._files[path]
            (self._kept / path).unlink(missing_ok=True)
        self._take(files, self._kept)
        self._touched = False
        return files, gone

    def contents(self) -> dict[str, bytes]:
        """Every file that is committed."""
        return {path: (self._kept / path).read_bytes() for path in sorted(self._files)}

    def remove(self) -> None:
        """Take everything away."""
        self._files.clear()
        shutil.rmtree(self._root, ignore_errors=True)

    def _changes(self) -> tuple[list[Saved], list[str]]:
        seen = dict(self._seen())
        found = unfit_paths(seen) or over(
            {path: it.st_size for path, it in seen.items()}, self._limits.bytes_max, self._limits.files_max
        )
        if found is not None:
            raise _refusal(found)
        changed = [path for path, it in seen.items() if path not in self._files or self._files[path][2] != _look(it)]
        files = [
            saved(path, (self.path / path).read_bytes(), executable=bool(seen[path].st_mode & stat.S_IXUSR))
            for path in sorted(changed)
        ]
        new = [it for it in files if self._files.get(it.path, ())[:2] != (it.digest, it.executable)]
        return new, sorted(self._files.keys() - seen.keys())

    def _take(self, files: Sequence[Saved], *bases: Path) -> None:
        """Have these as committed; `bases` are where they are not yet."""
        for it in files:
            for base in bases:
                place = base / it.path
                _clear(base, place)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(it.body)
            self._files[it.path] = it.digest, it.executable, _marked(self.path / it.path, executable=it.executable)

    def _back(self) -> None:
        """Undo what was not committed."""
        seen = dict(self._entries())
        for path in seen.keys() - self._files.keys():
            (self.path / path).unlink(missing_ok=True)
        for path, (digest, executable, look) in self._files.items():
            if path in seen and stat.S_ISREG(seen[path].st_mode) and _look(seen[path]) == look:
                continue
            place = self.path / path
            _clear(self.path, place)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._kept / path, place)
            self._files[path] = digest, executable, _marked(place, executable=executable)
        for folder, _, _ in os.walk(self.path, topdown=False):
            if folder != str(self.path) and not os.listdir(folder):
                os.rmdir(folder)

    def _seen(self) -> Iterator[tuple[str, os.stat_result]]:
        """What is there, as far as it may go and one more."""
        for path, found in islice(self._entries(), self._limits.files_max + 1):
            if not stat.S_ISREG(found.st_mode):
                detail = f"the workspace has {path!r}, which is no regular file; links and devices are not kept"
                raise refuse("INVALID_WORKSPACE", detail, path=path)
            yield path, found

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Everything that is no folder, links as what they are."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder, folders, names in os.walk(self.path):
            base = Path(folder)
            for name in [*names, *(it for it in folders if (base / it).is_symlink())]:
                place = base / name
                yield place.relative_to(self.path).as_posix(), place.lstat()


def _look(found: os.stat_result) -> Look:
    return found.st_ino, found.st_size, found.st_mtime_ns, bool(found.st_mode & stat.S_IXUSR)


def _marked(place: Path, *, executable: bool) -> Look:
    """Give a file the mode and the time of what is committed."""
    place.chmod(0o700 if executable else 0o600)
    os.utime(place, ns=(AS_COMMITTED_NS, AS_COMMITTED_NS))
    return _look(place.stat())


def _clear(base: Path, place: Path) -> None:
    """Make way for a file: what is a folder there, and what is none where a folder must be, goes."""
    for part in reversed(place.relative_to(base).parents):
        if (way := base / part).is_symlink() or (way.exists() and not way.is_dir()):
            way.unlink()
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _refusal(found: Fault) -> Exception:
    if found.limit is None:
        return refuse("INVALID_WORKSPACE", found.detail, **found.values)
    return refuse("LIMIT_REACHED", found.detail, limit=f"workspace.{found.limit}", **found.values)
