"""A gate as a process: URL, socket, key, bounds as JSON. Two of its effectors leave traces in a file."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any

import orjson
import uvloop
from pydantic import BaseModel

from controlplane.economy.rating import RateCard
from controlplane.effects.gate import Gate
from controlplane.effects.node import Bounds
from controlplane.guard.vault import Vault
from controlplane.knowledge.embedding import Embedder
from controlplane.mesh.dataschema import data_fault
from controlplane.mesh.finding import reading_finder
from controlplane.mesh.finding_effect import FindEffector
from controlplane.protocols.registry import registry
from controlplane.resources.problems import refuse
from schemas.endpoint import ConnectionSpec
from schemas.ports import EffectCall, Effector, Used
from tests.gate import census

KEY_OF_TESTS = bytes(32)


class Note(BaseModel):
    """Arguments of `notes.*`."""

    path: str
    text: str
    wait_s: float = 0.0
    fault: str = ""


class Notes:
    """Appends a line to a file, then takes its time."""

    arguments: type[BaseModel] = Note
    protocol: str | None = None
    timeout_s = 3.0
    reads_only = False

    def __init__(self, name: str, *, repeats_safely: bool) -> None:
        self.name = name
        self._repeats_for_s = inf if repeats_safely else 0.0

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return self._repeats_for_s

    def most(self, arguments: BaseModel, spec: ConnectionSpec | None) -> dict[str, float]:
        return {"noted": 2.0}

    async def ready(self) -> None:
        pass

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        note = Note.model_validate(arguments, from_attributes=True)
        descriptor = os.open(note.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{note.text} {call.key}\n".encode())
        os.close(descriptor)
        await asyncio.sleep(note.wait_s)
        if note.fault == "refuse":
            raise refuse("EFFECT_FAILED", "the far side says no", effect=self.name)
        if note.fault == "break":
            raise LookupError("a bug of the effector")
        if note.fault == "no json":
            return {1, 2}
        return Used({"noted": note.text}, {"noted": 2.0})


def moved_clock(path: str | None) -> Callable[[], float]:
    """The machine's clock, moved by what a file says in seconds."""
    if path is None:
        return time.time
    return lambda: time.time() + float(Path(path).read_text())


async def served(gate: Gate, census_to: str | None) -> None:
    """Serve, and tell what there is when somebody asks."""
    if census_to is not None:
        census.listen(Path(census_to))
    await gate.serve()


def main() -> None:
    """A gate with effectors of the tests, until it is told to end."""
    url, socket, key, bounds = sys.argv[1:]
    given = orjson.loads(bounds)
    card = RateCard("EUR", {meter: Decimal(rate) for meter, rate in given.pop("rates", {}).items()})
    clock = moved_clock(given.pop("clock_moved_by", None))
    census_to = given.pop("census_to", None)
    logging.basicConfig(level=logging.INFO)
    notes: tuple[Effector, ...] = (
        Notes("notes.once", repeats_safely=False),
        Notes("notes.again", repeats_safely=True),
        FindEffector(reading_finder(url, Embedder())),
    )
    folders = [Path(it) for it in given.pop("connection_folders", ())]
    effectors = {**registry().performers(data_fault, folders=folders), **{it.name: it for it in notes}}
    gate = Gate(
        url=url,
        socket=Path(socket),
        key=key,
        effectors=effectors,
        listeners=registry().listeners,
        bounds=Bounds(**({"lease_s": 5.0, "hosts_warm": 0, "hold_s": 0.2} | given)),
        clock=clock,
        card=card,
        open_secret=Vault(KEY_OF_TESTS).open,
    )
    uvloop.run(served(gate, census_to))


if __name__ == "__main__":
    main()
