"""What a confined process sees: the system's programs, the interpreter, our own code, one door to the gate.

Nothing is hidden by name: the view begins empty and holds what is named here, read-only, at the paths where
it lies outside, even when a folder above is closed to other users. What the process writes lies in memory,
is bounded, and goes with it. So the data folder, other agents' workspaces and everything else on the machine
are not forbidden: they are not there.
"""

import glob
import os
import site
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray_runtime.confinement.calls import program

DOOR = "/run/steward"
HOME = "/home/agent"
BYTES_MAX = 268_435_456
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
SETTINGS = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "ssl", "pki", "ca-certificates", "passwd",
    "group", "nsswitch.conf", "hosts", "alternatives", "mime.types", "os-release", "services", "protocols",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
HANDED_DOWN = ("LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH")
OF_ACCELERATORS = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
PACKAGES = ("ray_runtime", "schemas")
_PROJECT = Path(__file__).resolve().parent.parent.parent


def plan(
    *,
    uid: int,
    root: Path,
    argv: Sequence[str],
    env: Mapping[str, str],
    door: Path | None = None,
    hidden: Sequence[Path] = (),
    accelerators: bool = False,
) -> dict[str, Any]:
    """What `enter` is told. `door` is the folder of the gate's socket; `hidden` are folders that no tree may show.

    Raises KeyError on a machine whose calls are not known.
    """
    trees, links = _trees()
    given = [*HANDED_DOWN, *(OF_ACCELERATORS if accelerators else ())]
    inherited = {name: it for name, it in os.environ.items() if name in given or name.startswith("LC_")}
    devices = [*DEVICES, *(sorted(glob.glob("/dev/nvidia*")) if accelerators else ())]
    own = {
        "PATH": os.pathsep.join((os.path.dirname(sys.executable), "/usr/local/bin", "/usr/bin", "/bin")),
        "PYTHONPATH": os.pathsep.join(_paths()),
        "PYTHONHASHSEED": "0",
        "HOME": HOME,
        "TMPDIR": "/tmp",  # noqa: S108 - its own
    }
    return {
        "uid": uid,
        "root": str(root),
        "bytes_max": BYTES_MAX,
        "trees": [*trees, *([(str(door), DOOR)] if door is not None else [])],
        "links": links,
        "devices": [it for it in devices if not os.path.isdir(it)],
        "hidden": sorted({name for it in hidden for name in (str(it), os.path.realpath(it))}),
        "folders": [("/tmp", 0o1777, False), ("/dev/shm", 0o1777, False), (HOME, 0o700, True)],  # noqa: S108
        "filter": program(os.uname().machine).hex(),
        "argv": list(argv),
        "env": inherited | own | dict(env),
    }


def _trees() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What is bound, each once, the outer before the inner; and the links that lead to it."""
    trees: list[tuple[str, str]] = []
    links: list[tuple[str, str]] = []
    for path in (*SYSTEM, *(f"/etc/{it}" for it in SETTINGS), *sorted(set(_needed()), key=len)):
        if any(path == it or path.startswith(f"{it}/") for it, _ in trees):
            continue
        if os.path.islink(path) and path.startswith((*SYSTEM, "/etc/")):
            links.append((path, os.readlink(path)))
        elif os.path.exists(path):
            trees.append((path, path))
    hops = (it for it in _hops(sys.executable) if not any(it.startswith(f"{tree}/") for tree, _ in trees))
    links += [(it, os.readlink(it)) for it in hops]
    return trees, links


def _needed() -> Iterator[str]:
    """The interpreter, what is installed for it, our packages, and what the environment adds."""
    for path in (sys.prefix, sys.base_prefix, *site.getsitepackages(), *_added()):
        yield from (path, os.path.realpath(path))
    yield from (str(_PROJECT / it) for it in PACKAGES)


def _added() -> list[str]:
    """Folders that whoever runs the installation added; the project's own is shown by its packages alone."""
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [it for it in added if os.path.isabs(it) and it != "/" and os.path.realpath(it) != str(_PROJECT)]


def _paths() -> list[str]:
    return [str(_PROJECT), *_added()]


def _hops(path: str) -> Iterator[str]:
    """The links on the way to a file."""
    for _ in range(10):
        if not os.path.islink(path):
            return
        yield path
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
