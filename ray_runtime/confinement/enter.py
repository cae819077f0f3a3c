"""Be confined, then be another program. Runs by itself, as root, with nothing but the standard library.

It is told on its standard input, as JSON, by `view`: `uid`, `root` (an empty folder), `bytes_max`,
`trees` [[source, target]], `links` [[path, target]], `devices`, `hidden`, `folders` [[path, mode, own]],
`filter` (a seccomp program as hex), `argv`, `env`. What goes wrong is written to the descriptor that is its
first argument; when nothing does, that one is closed by the start of the program. It stays as the parent of the
first process of a pid namespace, in which the program runs, and ends with it and with its own parent.
"""

import ctypes
import json
import os
import resource
import select
import signal
import stat
import sys
from typing import Any, NoReturn

NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_PID, NEW_NET = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, RDONLY, BIND, REC, PRIVATE = 2, 4, 8, 1, 4096, 16384, 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
MOUNT_SETATTR, PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
SET_PDEATHSIG, SET_DUMPABLE, SET_SECCOMP, CAPBSET_DROP, SET_NO_NEW_PRIVS, CAP_AMBIENT = 1, 4, 22, 24, 38, 47
AMBIENT_CLEAR_ALL, SECCOMP_FILTER, CAPABILITIES_V3 = 4, 2, 0x20080522
INODES_MAX, PROCESSES_MAX = 100_000, 1024
FAILED = 71

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def done(answer: int, what: str) -> None:
    """Raises OSError with the step in words when the kernel refused it."""
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    given = None if kind is None else kind.encode()
    options = None if data is None else data.encode()
    done(_libc.mount(source.encode(), target.encode(), given, flags, options), f"mount {target}")


def fixed(target: str, flags: int) -> None:
    """Flags for a mount and for what is mounted below it."""
    wanted = Attributes(flags, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    answer = _libc.syscall(
        MOUNT_SETATTR, AT_FDCWD, target.encode(), ctypes.c_uint(AT_RECURSIVE), ctypes.byref(wanted), size
    )
    done(answer, f"mount_setattr {target}")


def prctl(what: int, first: int, second: Any = 0) -> None:
    done(_libc.prctl(what, ctypes.c_ulong(first), second, 0, 0), f"prctl {what}")


def build(plan: dict[str, Any], root: str) -> None:
    """The whole view, on a file system in memory that goes with the process."""
    mount("none", "/", None, REC | PRIVATE)
    size = f"size={plan['bytes_max']},nr_inodes={INODES_MAX},mode=755"
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV, size)
    for source, target in plan["trees"]:
        place = root + target
        if stat.S_ISDIR(os.stat(source).st_mode):
            os.makedirs(place, exist_ok=True)
        else:
            made(place)
        mount(source, place, None, BIND | REC)
        fixed(place, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for hidden in plan["hidden"]:
        if os.path.isdir(root + hidden):
            mount("tmpfs", root + hidden, "tmpfs", RDONLY | NOSUID | NODEV, "size=4k,mode=755")
    for path, target in plan["links"]:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for device in plan["devices"]:
        made(root + device)
        mount(device, root + device, None, BIND)
        fixed(root + device, ATTR_NOSUID | ATTR_NOEXEC)
    for path, mode, own in plan["folders"]:
        os.makedirs(root + path, exist_ok=True)
        os.chmod(root + path, mode)
        if own:
            os.chown(root + path, plan["uid"], plan["uid"])


def made(path: str) -> None:
    """An empty file, as the place of a mount."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def enter(root: str) -> None:
    """Have the view as the whole file system; what was there before is out of reach."""
    os.makedirs(f"{root}/proc", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", NOSUID | NODEV | NOEXEC)
    os.chdir(root)
    done(_libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    done(_libc.umount2(b".", DETACH), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    """No capability, and none to be had."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for capability in range(last + 1):
        prctl(CAPBSET_DROP, capability)
    prctl(CAP_AMBIENT, AMBIENT_CLEAR_ALL)
    prctl(SET_NO_NEW_PRIVS, 1)


def clear_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    done(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def become(plan: dict[str, Any]) -> NoReturn:
    """Be nobody but the uid, for good, with fewer calls; then the program. Raises OSError."""
    uid, program = plan["uid"], bytes.fromhex(plan["filter"])
    drop_capabilities()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES_MAX, PROCESSES_MAX))
    clear_capabilities()
    kept = ctypes.create_string_buffer(program, len(program))
    wanted = Program(len(program) // 8, ctypes.cast(kept, ctypes.c_void_p).value)
    prctl(SET_SECCOMP, SECCOMP_FILTER, ctypes.byref(wanted))
    os.umask(0o077)
    os.execve(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606


def first(plan: dict[str, Any], alive: int, status: int) -> int:
    """The first process of the pid namespace: it makes the view, and goes with whoever started it.

    With it the kernel ends whatever is in the namespace, so nothing that a confined process does to itself can
    make it outlive its supervisor. Answers the program's exit code; raises OSError before there is one.
    """
    done(_libc.unshare(NEW_MOUNT | NEW_NET | NEW_IPC | NEW_UTS), "unshare")
    build(plan, plan["root"])
    enter(plan["root"])
    prctl(SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:  # its parent ended before that
        return FAILED
    program = os.fork()
    if program == 0:
        os.set_inheritable(status, False)  # noqa: FBT003
        become(plan)
    os.close(status)
    drop_capabilities()
    clear_capabilities()
    while (ended := os.wait())[0] != program:
        pass
    return os.waitstatus_to_exitcode(ended[1]) & 255


def main() -> int:
    """Start the confined program and wait for its end; answers its exit code."""
    status, parent = int(sys.argv[1]), int(sys.argv[2])
    try:
        prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return FAILED
        plan = json.load(sys.stdin)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        if os.uname().machine not in PIVOT_ROOT:
            raise OSError(f"this is not known for {os.uname().machine}")
        done(_libc.unshare(NEW_PID), "unshare")
        alive, held = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(held)
            os._exit(first(plan, alive, status))
    except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is told
        os.write(status, str(getattr(error, "strerror", None) or error).encode()[:1000])
        os._exit(FAILED)
    os.close(status)
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended) & 255


if __name__ == "__main__":
    sys.exit(main())
