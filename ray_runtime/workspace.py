"""An agent's folder on this host: as it was committed at the start of a turn, looked through at its end.

What a turn changed and did not commit is undone before the next attempt, as with its state. Files that are
as they were committed carry one fixed time, so that whatever was written to since then is seen by its own,
and nothing else need be read. A second copy stands beside the folder, to go back to. Only regular files are
kept, with whether they can be executed; folders exist by their files. A link is never followed, nor one
that was put in place of the folder itself: nothing is looked at, changed or removed where it leads.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ray_runtime import folders
from ray_runtime.problems import refuse
from schemas.workspace import PATH_CHARS_MAX, Fault, Folder, Saved, over, saved, unfit_paths

AS_COMMITTED_NS = 946_684_800 * 10**9  # the year 2000: the time of files that nobody wrote to since
Look = tuple[int, int, int, bool]  # inode, size, time of the last change, executable
NOW, KEPT = "now", "kept"


class Workspace:
    """The folder of one agent; `path` is what its handlers see."""

    def __init__(self, root: Path) -> None:
        self.path = root / NOW
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
            self._root.parent.mkdir(parents=True, exist_ok=True)
            with self._open(NOW, make=True) as now, self._open(KEPT, make=True) as kept:
                for it in folder.files:
                    folders.put(kept, it.path, it.body)
                    folders.put(now, it.path, it.body)
                    self._committed(now, it.path, it.digest, executable=it.executable)
        elif not self._is_kept():
            raise FileNotFoundError("its files did not come with the turn")
        elif self._touched:
            with self._open(NOW, make=True) as now, self._open(KEPT) as kept:
                self._back(now, kept)
        self._touched = True

    def settle(self) -> tuple[list[Saved], list[str]]:
        """What is new or other than before, and what is gone: from now on, what an attempt goes back to.

        Raises INVALID_WORKSPACE for what is no regular file or has no proper path, or where the folder itself is none
        any more; LIMIT_REACHED; and OSError.
        """
        with self._there() as now, self._open(KEPT) as kept:
            files, gone = self._changes(now)
            for path in gone:
                del self._files[path]
                folders.unlink(kept, path)
            for it in files:
                folders.put(kept, it.path, it.body)
                if folders.shared(now, it.path):  # under the other name nothing shall change
                    folders.put(now, it.path, it.body)
                self._committed(now, it.path, it.digest, executable=it.executable)
        self._touched = False
        return files, gone

    def contents(self) -> dict[str, bytes]:
        """Every file that is committed."""
        with self._open(KEPT) as kept:
            return {path: folders.read(kept, path) for path in sorted(self._files)}

    def remove(self) -> None:
        """Take everything away."""
        self._files.clear()
        with contextlib.suppress(OSError), folders.opened(str(self._root.parent)) as above:
            folders.remove(above, self._root.name, whatever=True)

    @contextlib.contextmanager
    def _open(self, name: str, *, make: bool = False) -> Iterator[int]:
        with (
            folders.opened(str(self._root.parent)) as above,
            folders.opened(above, (self._root.name, name), make=make) as found,
        ):
            yield found

    @contextlib.contextmanager
    def _there(self) -> Iterator[int]:
        """The folder as the turn has left it; where it took it away, an empty one."""
        with contextlib.ExitStack() as stack:
            try:
                above = stack.enter_context(folders.opened(str(self._root.parent)))
                root = stack.enter_context(folders.opened(above, (self._root.name,)))
                with contextlib.suppress(FileExistsError):
                    os.mkdir(NOW, 0o700, dir_fd=root)
                now = stack.enter_context(folders.opened(root, (NOW,)))
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                detail = "the workspace itself is no folder any more; a link in its place is not followed"
                raise refuse("INVALID_WORKSPACE", detail, path=".") from None
            yield now

    def _is_kept(self) -> bool:
        with contextlib.suppress(OSError), self._open(KEPT):
            return True
        return False

    def _committed(self, now: int, path: str, digest: str, *, executable: bool) -> None:
        """A file is as it is committed: by its mode and time that is seen again."""
        marked = folders.mark(now, path, 0o700 if executable else 0o600, AS_COMMITTED_NS)
        self._files[path] = digest, executable, _look(marked)

    def _changes(self, now: int) -> tuple[list[Saved], list[str]]:
        seen = dict(self._seen(now))
        found = unfit_paths(seen) or over(
            {path: it.st_size for path, it in seen.items()}, self._limits.bytes_max, self._limits.files_max
        )
        if found is not None:
            raise _refusal(found)
        changed = [path for path, it in seen.items() if path not in self._files or self._files[path][2] != _look(it)]
        files = [
            saved(path, folders.read(now, path), executable=bool(seen[path].st_mode & stat.S_IXUSR))
            for path in sorted(changed)
        ]
        new = [it for it in files if self._files.get(it.path, ())[:2] != (it.digest, it.executable)]
        return new, sorted(self._files.keys() - seen.keys())

    def _back(self, now: int, kept: int) -> None:
        """Undo what was not committed."""
        seen = dict(folders.found(now, PATH_CHARS_MAX))
        needed = {"/".join(path.split("/")[:n]) for path in self._files for n in range(1, path.count("/") + 1)}
        for path, it in seen.items():
            if not stat.S_ISDIR(it.st_mode) and path not in self._files:
                folders.unlink(now, path)
        for path in sorted((it for it in seen if stat.S_ISDIR(seen[it].st_mode)), reverse=True):
            if path not in needed and path not in self._files:
                folders.clear(now, path)
        for path, (digest, executable, look) in self._files.items():
            if path not in seen or not stat.S_ISREG(seen[path].st_mode) or _look(seen[path]) != look:
                folders.put(now, path, folders.read(kept, path))
                self._committed(now, path, digest, executable=executable)

    def _seen(self, now: int) -> Iterator[tuple[str, os.stat_result]]:
        """What is there, as far as it may go and one more."""
        there = (it for it in folders.found(now, PATH_CHARS_MAX) if not self._is_way(*it))
        for path, found in islice(there, self._limits.files_max + 1):
            if not stat.S_ISREG(found.st_mode):
                detail = f"the workspace has {path!r}, which is no regular file; links and devices are not kept"
                raise refuse("INVALID_WORKSPACE", detail, path=path)
            yield path, found

    @staticmethod
    def _is_way(path: str, found: os.stat_result) -> bool:
        """Whether it is a folder that was looked into."""
        return stat.S_ISDIR(found.st_mode) and len(path) <= PATH_CHARS_MAX


def _look(found: os.stat_result) -> Look:
    return found.st_ino, found.st_size, found.st_mtime_ns, bool(found.st_mode & stat.S_IXUSR)


def _refusal(found: Fault) -> Exception:
    if found.limit is None:
        return refuse("INVALID_WORKSPACE", found.detail, **found.values)
    return refuse("LIMIT_REACHED", found.detail, limit=f"workspace.{found.limit}", **found.values)
