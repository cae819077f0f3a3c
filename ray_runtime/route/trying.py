"""Samples of a route, tried in a process of their own: whatever an expression takes, it takes from nobody else.

`python -m ray_runtime.route.trying`: one JSON object `{filter, transform, samples, envelope}` comes on standard input,
and a list goes to standard output: of each sample `[passed, made, unfit]`. Memory and CPU time are bounded by the
operating system; who goes beyond ends without an answer.
"""

import resource
import sys

import orjson

from .expressions import Unfit, passes, transformed

MEMORY_BYTES_MAX = 1_073_741_824
CPU_S_MAX = 2


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    given = orjson.loads(sys.stdin.buffer.read())
    found: list[tuple[bool, object, str]] = []
    for sample in given["samples"]:
        try:
            passed = passes(given["filter"], data=sample, envelope=given["envelope"])
            made = transformed(given["transform"], sample, given["envelope"]) if passed else None
            found.append((passed, made, ""))
        except Unfit as unfit:
            found.append((False, None, str(unfit)))
    sys.stdout.buffer.write(orjson.dumps(found))


if __name__ == "__main__":
    main()
