"""`python -m controlplane.wiring gate [--spare]|placer`: a child process of the plane.

A spare imports what it needs, and begins when it is told to; it ends when whoever would tell it has ended.
"""

import importlib
import os
import sys

from controlplane.wiring import IMPORTED, gate, handed_down, placer


def main() -> None:
    name, *spare = sys.argv[1:]
    if spare:
        for module in IMPORTED[name]:
            importlib.import_module(module)
        if not sys.stdin.buffer.readline():
            return
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    {"gate": gate, "placer": placer}[name](handed_down())


main()
