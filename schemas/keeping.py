"""What Ray can keep for a host or a task: what it refuses of amounts, names and labels, said before it is asked.

What it refuses it refuses to whoever asks, with an exception, and of a label's key it may never come to an end. Of
new specs and arguments that is refused where they come in. What is stored already stays readable: nobody asks Ray for
it, and whoever waits for it hears why. Pure.
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol

LEAST = 0.0001  # Ray counts in these
OWN = ("CPU", "GPU", "memory", "object_store_memory", "bundle")  # names of Ray's, which no custom resource has
WHOLE = ("FURIOSA", "HPU", "MBLT", "RBLN", "TTNPU", "neuron_cores")  # accelerators that it gives undivided
SHARED = "NPU"  # as a GPU: a part of one, or whole ones
TPU, TPUS = "TPU", (1, 2, 4, 8)
_PART = "[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
KEY = rf"^({_PART}(\.{_PART})*/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?$"
VALUE = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_AT_LEAST: dict[str, Any] = {"minimum": LEAST}
_UNDIVIDED: dict[str, Any] = {"type": "integer", "minimum": 1}
_PART_OR_WHOLE: dict[str, Any] = {"anyOf": [{"minimum": LEAST, "maximum": 1}, _UNDIVIDED]}
_NONE: dict[str, Any] = {"const": 0}


class Wanted(Protocol):
    """Of an agent's own host, or of a task."""

    @property
    def num_cpus(self) -> float: ...
    @property
    def num_gpus(self) -> float: ...
    @property
    def custom(self) -> dict[str, float]: ...
    @property
    def labels(self) -> dict[str, str]: ...


def unfit(wanted: Wanted) -> tuple[str, str] | None:
    """What of it Ray does not take, as a path within it, and why; None when it takes all."""
    for name in ("num_cpus", "num_gpus"):
        if (amount := getattr(wanted, name)) and (why := _amiss(name, amount)):
            return name, why
    for name, amount in wanted.custom.items():
        if name in OWN:
            return f"custom/{name}", f"{name} is a name of Ray's own, and of no custom resource"
        if why := _amiss(name, amount):
            return f"custom/{name}", why
    for key, value in wanted.labels.items():
        if not re.fullmatch(KEY, key):
            return "labels", f"{key!r} is no key of a label: prefix/name, each of letters, digits, '-', '_' and '.'"
        if not re.fullmatch(VALUE, value):
            place = key.replace("/", "~1")
            return f"labels/{place}", f"{value!r} is no value of a label: letters, digits, '-', '_' and '.'"
    return None


def _amiss(name: str, amount: float) -> str:
    if amount < LEAST:
        return f"{amount:g} is less than {LEAST:g}, in which Ray counts"
    if name == TPU and amount not in TPUS:
        return f"{amount:g} is none of {', '.join(map(str, TPUS))}: Ray gives no other number of TPUs"
    if amount != int(amount) and (name in WHOLE or (amount > 1 and name in ("num_gpus", SHARED))):
        return f"{amount:g} is no whole number, and Ray divides no more than one"
    return ""


def narrow(schema: dict[str, Any]) -> None:
    """The same, in the JSON Schema of what comes in."""
    of = schema["properties"]
    of["num_cpus"]["anyOf"] = [_NONE, _AT_LEAST]
    of["num_gpus"]["anyOf"] = [_NONE, *_PART_OR_WHOLE["anyOf"]]
    custom = of["custom"]
    each = {name: it for name, it in custom["additionalProperties"].items() if name != "exclusiveMinimum"}
    named: Mapping[str, dict[str, Any]] = {TPU: {"enum": list(TPUS)}, SHARED: _PART_OR_WHOLE} | dict.fromkeys(
        WHOLE, _UNDIVIDED
    )
    custom["propertyNames"] = {**custom["propertyNames"], "not": {"enum": list(OWN)}}
    custom["properties"] = {name: each | it for name, it in sorted(named.items())}
    custom["additionalProperties"] = each | _AT_LEAST
    of["labels"]["propertyNames"] = {**of["labels"]["propertyNames"], "pattern": KEY}
    of["labels"]["additionalProperties"] = {**of["labels"]["additionalProperties"], "pattern": VALUE}
