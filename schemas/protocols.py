"""What a protocol's package declares, by an entry point of the group `steward.protocols`.

The entry point's name is the protocol's, and it leads to a `Declaration`. Loading one must be quick: what takes
long is imported with the first effect (`Effector.ready`). The recipe is docs/recipes/add-a-protocol.md.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from schemas.endpoint import ConnectionSpec
from schemas.ports import Effector, Family, Listener

GROUP = "steward.protocols"
Performer = Effector | Family


class Fault(NamedTuple):
    """What is wrong with a spec: a JSON pointer into it, and why, in words."""

    at: str
    why: str


@dataclass(frozen=True)
class Around:
    """What a protocol's effectors find in their gate: the effectors of all protocols, by name, once all are made;
    what is wrong with data by a JSON Schema, in words (None: nothing); and the folders of this machine that a
    connection may name files in."""

    performers: Mapping[str, Performer]
    fault_of: Callable[[dict[str, Any], Any], str | None]
    folders: tuple[Path, ...] = ()


def _none(_: ConnectionSpec) -> Fault | None:
    return None


@dataclass(frozen=True)
class Declaration:
    """One protocol.

    `connects` says whether connections can be of it. `options` is the JSON Schema that the options of one meet;
    a protocol of ours has a model in `schemas` instead. `fault` says what no schema can say of a whole spec, as of
    its endpoint: without I/O, the same for the same spec. `performers` makes its effectors and families; their
    names begin with the protocol's and a dot. `listener` lets in what is posted to its connections.
    """

    name: str
    performers: Callable[[Around], Iterable[Performer]]
    connects: bool = True
    options: Mapping[str, Any] | None = None
    fault: Callable[[ConnectionSpec], Fault | None] = _none
    listener: Listener | None = None
