"""A gate as a process: URL, socket, key, bounds as JSON."""

import asyncio
import logging
import sys
from pathlib import Path

import orjson

from controlplane.effects.gate import Gate
from controlplane.effects.node import Bounds
from controlplane.protocols.machine import MachineEffector

if __name__ == "__main__":
    url, socket, key, bounds = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    effector = MachineEffector()
    gate = Gate(
        url=url,
        socket=Path(socket),
        key=key,
        effectors={effector.name: effector},
        bounds=Bounds(**({"lease_s": 5.0, "hosts_warm": 0} | orjson.loads(bounds))),
    )
    asyncio.run(gate.serve())
