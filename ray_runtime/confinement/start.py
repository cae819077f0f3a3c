"""Starting a confined process, and whether this system lets one be had at all.

There is no second best: what can not be confined is not started, and is told why in words.
"""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from ray_runtime.confinement import calls, enter, view

STATUS_BYTES_MAX = 1000
PROBE_S_MAX = 20.0
UID_FIRST = 1000
_LIBRARIES = ("LD_LIBRARY_PATH",)


class Unconfined(RuntimeError):  # noqa: N818 - a state, told in words
    """This system does not let a process be confined; says why."""


def start(plan: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """Start what a plan of `view` says; answers once it runs. Its output comes over one pipe.

    It ends with the thread that starts it. Raises Unconfined.
    """
    if (why := _lacking()) is not None:
        raise Unconfined(why)
    if plan["uid"] < UID_FIRST:
        raise Unconfined("no uid was given to it; all of `confined_uids` are taken, or the gate is not root")
    if _has_processes(plan["uid"]):
        raise Unconfined(f"uid {plan['uid']} has processes already")
    told, status = os.pipe()
    command = [sys.executable, "-I", "-S", enter.__file__, str(status), str(os.getpid())]
    environment = {name: os.environ[name] for name in _LIBRARIES if name in os.environ}
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            pass_fds=[status], cwd="/",
        )  # fmt: skip
    except OSError as error:
        os.close(told)
        raise Unconfined(str(error)) from None
    finally:
        os.close(status)
    given, child.stdin = child.stdin, None  # or `communicate` would look for it
    assert given is not None
    with os.fdopen(told, "rb") as reading:
        with contextlib.suppress(OSError), given:  # it has ended, and says why
            given.write(json.dumps(plan).encode())
        why = reading.read(STATUS_BYTES_MAX).decode(errors="replace")
    if why:
        child.kill()
        child.communicate()
        raise Unconfined(why)
    return child


@functools.cache
def why_not(uid: int) -> str | None:
    """Why no process can be confined here; None when one can. Confines one, once, and remembers the answer."""
    root = Path(tempfile.mkdtemp(prefix="steward-probe-"))
    try:
        argv = [sys.executable, "-S", "-c", "import json"]
        child = start(view.plan(uid=uid, root=root, argv=argv, env={}))
        try:
            said = child.communicate(timeout=PROBE_S_MAX)[0].decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return "a confined process did not end in time"
        return f"Python does not run confined: {said[-300:]}" if child.returncode else None
    except Unconfined as error:
        return str(error)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _lacking() -> str | None:
    """What is plain to see without trying."""
    if sys.platform != "linux":
        return f"it takes Linux, and this is {sys.platform}"
    if os.uname().machine not in calls.MACHINES:
        return f"it is not known for machines of the kind {os.uname().machine}"
    if os.geteuid() != 0:
        return f"hosts run as uid {os.geteuid()}, and only root can give a process a uid of its own"
    return None


def _has_processes(uid: int) -> bool:
    """Whether somebody is this uid already: it would not be one agent's own."""
    for process in psutil.process_iter():
        try:
            if uid in process.uids():
                return True
        except psutil.Error:
            continue
    return False
