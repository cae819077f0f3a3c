"""Files within a folder that is open: by names that lead to it step by step, and along no link.

Whatever is put where a folder was, and whenever, nothing beyond it is read, written, removed or changed.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STEP = FOLDER | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe does not wait
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def opened(folder: int | str, names: Sequence[str] = (), *, make: bool = False) -> Iterator[int]:
    """A folder within one that is open, or at a path; `make`: it is there then, and what is none on the way is not."""
    here = os.open(folder, FOLDER) if isinstance(folder, str) else os.dup(folder)
    try:
        for name in names:
            if make:
                _make(here, name)
            deeper = os.open(name, _STEP, dir_fd=here)
            os.close(here)
            here = deeper
        yield here
    finally:
        os.close(here)


def found(folder: int, depth_chars_max: int) -> Iterator[tuple[str, os.stat_result]]:
    """All that is in it, folders before what they hold; links as what they are. What lies too deep is not entered."""
    left = [""]
    while left:
        at = left.pop()
        with opened(folder, _parts(at)) as here, os.scandir(here) as entries:
            there = [(it.name, it.stat(follow_symlinks=False)) for it in entries]
        for name, about in there:
            path = f"{at}/{name}" if at else name
            if stat.S_ISDIR(about.st_mode) and len(path) <= depth_chars_max:
                left.append(path)
            yield path, about


def read(folder: int, path: str) -> bytes:
    """The bytes of a regular file."""
    with _file(folder, path) as file, open(file, "rb", closefd=False) as opened_file:
        return opened_file.read()


def put(folder: int, path: str, body: bytes) -> None:
    """Have a file of its own there; what stood in its way goes."""
    *folders, name = _parts(path)
    with opened(folder, folders, make=True) as here:
        remove(here, name)
        with open(os.open(name, _NEW, 0o600, dir_fd=here), "wb") as file:
            file.write(body)


def mark(folder: int, path: str, mode: int, at_ns: int) -> os.stat_result:
    """Give a file this mode and time, and say what it is then."""
    with _file(folder, path) as file:
        os.fchmod(file, mode)
        os.utime(file, ns=(at_ns, at_ns))
        return os.fstat(file)


def shared(folder: int, path: str) -> bool:
    """Whether the file has another name, here or elsewhere."""
    with _file(folder, path) as file:
        return os.fstat(file).st_nlink > 1


def unlink(folder: int, path: str) -> None:
    """Take away what is no folder; it may have gone."""
    *folders, name = _parts(path)
    with contextlib.suppress(FileNotFoundError), opened(folder, folders) as here:
        os.unlink(name, dir_fd=here)


def clear(folder: int, path: str) -> None:
    """Take away a folder with all that is in it; it may have gone."""
    *folders, name = _parts(path)
    with contextlib.suppress(FileNotFoundError), opened(folder, folders) as here:
        remove(here, name)


def remove(folder: int, name: str, *, whatever: bool = False) -> None:
    """Take away whatever is there, a link as what it is; `whatever` of it can not be removed stays."""
    with contextlib.suppress(FileNotFoundError):
        if _is_folder(folder, name):
            shutil.rmtree(name, ignore_errors=whatever, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def _make(folder: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        if not _is_folder(folder, name):
            os.unlink(name, dir_fd=folder)
            os.mkdir(name, 0o700, dir_fd=folder)


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _parts(path: str) -> list[str]:
    return path.split("/") if path else []


@contextlib.contextmanager
def _file(folder: int, path: str) -> Iterator[int]:
    *folders, name = _parts(path)
    with opened(folder, folders) as here:
        file = os.open(name, _READ, dir_fd=here)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(f"{path!r} is no regular file any more")
            yield file
        finally:
            os.close(file)
