"""Which calls of the kernel a confined process can not make, as a seccomp program. Pure.

A network namespace does not bound every family of sockets (those to a machine's hypervisor have none), a
user namespace would give capabilities again inside of it, io_uring goes past a filter of calls. The rest
are calls of debuggers and keyrings, which no agent needs. Everything else is allowed: the uid, the
namespaces and the view decide there.
"""

import errno
import struct

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
FOREIGN_ABI = 0x40000000
NEW_NAMESPACES = 0x7E020080  # all that clone can make: mount, cgroup, uts, ipc, user, pid, net, time
FAMILIES = (1, 2, 10)  # unix, and IPv4 and IPv6, where an empty network says that nothing can be reached
IO_URING = (425, 426, 427)
CLONE3 = 435
MACHINES = {  # the kernel's mark, clone, what opens sockets, what is refused
    "x86_64": (0xC000003E, 56, (41, 53), (272, 308, 101, 310, 311, 248, 249, 250, 298, 321, 323)),
    "aarch64": (0xC00000B7, 220, (198, 199), (97, 268, 117, 270, 271, 217, 218, 219, 241, 280, 282)),
}  # unshare, setns, ptrace, process_vm_*, add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd


def program(machine: str) -> bytes:
    """The filter as the kernel takes it, 8 bytes a step. Raises KeyError for a machine that is not known."""
    mark, clone, sockets, refused = MACHINES[machine]
    steps = [(LOAD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 1, 0, mark), _answer(KILL), (LOAD, 0, 0, NUMBER)]
    steps += [(JUMP_AT_LEAST, 0, 1, FOREIGN_ABI), _answer(KILL)]
    for number in refused:
        steps += [(JUMP_EQUAL, 0, 1, number), _answer(ERROR | errno.EPERM)]
    for number in (*IO_URING, CLONE3):  # whoever calls these knows what to do without them
        steps += [(JUMP_EQUAL, 0, 1, number), _answer(ERROR | errno.ENOSYS)]
    of_clone = [(LOAD, 0, 0, FIRST_ARGUMENT), (JUMP_SET, 0, 1, NEW_NAMESPACES), _answer(ERROR | errno.EPERM)]
    steps += [(JUMP_EQUAL, 0, len(of_clone) + 1, clone), *of_clone, _answer(ALLOW)]
    of_socket = [(LOAD, 0, 0, FIRST_ARGUMENT)]
    for family in FAMILIES:
        of_socket += [(JUMP_EQUAL, 0, 1, family), _answer(ALLOW)]
    of_socket.append(_answer(ERROR | errno.EAFNOSUPPORT))
    for number in sockets:
        steps += [(JUMP_EQUAL, 0, len(of_socket), number), *of_socket]
    steps.append(_answer(ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _answer(what: int) -> tuple[int, int, int, int]:
    return RETURN, 0, 0, what
