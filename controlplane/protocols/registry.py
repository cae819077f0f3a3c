"""Which protocols there are: what the entry points of `steward.protocols` declare, ours first.

A package that can not be loaded, or declares what it may not, is left out and told of; all others work. What is
loaded stays as it is until the process ends.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from controlplane import protocols
from schemas.ports import Listener
from schemas.protocols import GROUP, Around, Declaration, Performer

log = logging.getLogger("steward.protocols")
ABOUT_CHARS_MAX = 500
NAME = re.compile(r"[a-z][a-z0-9]{0,31}")
FaultOf = Callable[[dict[str, Any], Any], str | None]


@dataclass(frozen=True)
class Trouble:
    """A protocol that is left out, and why."""

    name: str
    package: str
    why: str


@dataclass(frozen=True)
class Registry:
    """The protocols by their names, and those that are left out."""

    declared: Mapping[str, Declaration]
    troubles: tuple[Trouble, ...] = ()

    @property
    def listeners(self) -> Mapping[str, Listener]:
        """Those that let in what is posted, by their protocols."""
        return {name: it.listener for name, it in self.declared.items() if it.listener is not None}

    def performers(
        self, fault_of: FaultOf, besides: Mapping[str, Performer] | None = None, folders: Sequence[Path] = ()
    ) -> Mapping[str, Performer]:
        """The effectors and families of all protocols, by their names, and those that are of none."""
        made: dict[str, Performer] = dict(besides or {})
        for it in self.declared.values():
            try:
                made |= _made(it, Around(made, fault_of, tuple(folders)))
            except Exception:
                log.exception("protocol %s made no effectors", it.name)
        return made


@cache
def registry() -> Registry:
    """What is installed beside this process."""
    return load(entry_points(group=GROUP))


def load(found: Iterable[EntryPoint]) -> Registry:
    """What these entry points declare; the first of a name stands, and ours come first."""
    declared: dict[str, Declaration] = {}
    troubles: list[Trouble] = []
    for it in sorted(found, key=lambda it: (not _ours(it), it.name, it.value)):
        try:
            declared[it.name] = _declared(it, it.load(), declared)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary of strangers' packages
            package = it.dist.name if it.dist is not None else it.value
            why = f"{type(error).__name__}: {error}"[:ABOUT_CHARS_MAX]
            log.warning("protocol %s of package %s is left out: %s", it.name, package, why)
            troubles.append(Trouble(it.name, package, why))
    return Registry(declared, tuple(troubles))


def _ours(it: EntryPoint) -> bool:
    return it.module.startswith(f"{protocols.__name__}.")


def _declared(it: EntryPoint, found: object, others: Mapping[str, Declaration]) -> Declaration:
    """What an entry point leads to, if it is a declaration that can be used."""
    if not isinstance(found, Declaration):
        raise TypeError(f"{it.value} is no Declaration")
    if found.name != it.name or not NAME.fullmatch(it.name):
        raise ValueError(f"{it.value} declares {found.name}, which must be the entry point's name, and {NAME.pattern}")
    if it.name in others:
        raise ValueError(f"there is a protocol {it.name} already")
    _made(found, Around({}, lambda *_: None))
    return found


def _made(it: Declaration, around: Around) -> dict[str, Performer]:
    made = {one.name: one for one in it.performers(around)}
    if strange := [name for name in made if not name.startswith(f"{it.name}.")]:
        raise ValueError(f"its effect {strange[0]} does not begin with {it.name}.")
    return made
