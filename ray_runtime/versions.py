"""Versions of a state: how one that other code stored becomes one of this code.

An agent says which version its state has, and has a function for each step on the way: up by
`migration`, and down, where a release shall take back a state of a newer one, by `downgrade`. The
steps run inside the turn that loads the state, on JSON values, before the state is read as what it
is by now. Whatever goes wrong is a Problem that names the version; what is stored stays as it is,
because a state is written by the end of a turn only.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ray_runtime.problems import refuse

FIRST = 1
State = dict[str, Any]


class Step:
    """One step between two versions of a state; can be called, as in a test of it."""

    def __init__(self, function: Any, before: int, after: int) -> None:
        self.function: Callable[[State], State] = getattr(function, "__func__", function)
        self.before = before
        self.after = after

    def __call__(self, state: State) -> State:
        return self.function(state)


def migration(version: int) -> Callable[[Any], Step]:
    """Marks the function that makes a state of this version one of the next."""
    return lambda function: Step(function, version, version + 1)


def downgrade(version: int) -> Callable[[Any], Step]:
    """Marks the function that makes a state of this version, which newer code stored, one of the version before."""
    return lambda function: Step(function, version, version - 1)


class Versions:
    """The version of an agent's state, and the steps that lead to it."""

    def __init__(self, agent: type) -> None:
        self._agent = agent.__qualname__
        self.current = _declared(agent)
        self._steps = _steps(agent, self.current)

    def bring(self, state: bytes, version: int | None) -> bytes:
        """The state as one of the current version; as it is where it is one already, or none is stored."""
        if version is None or version == self.current or not state:
            return state
        once, again = self._walked(state, version), self._walked(state, version)
        if once != again:
            detail = f"the way of {self._agent}.state from version {version} to {self.current} differs from run to run"
            raise refuse("NONDETERMINISTIC", detail, what="migration", **self._about(version))
        return once

    def _walked(self, state: bytes, version: int) -> bytes:
        value, at = orjson.loads(state), version
        while at != self.current:
            step = self._steps.get(at)
            if step is None:
                raise self._no_way(version, at)
            value = self._stepped(step, value, version)
            at = step.after
        return self._written(value, version)

    def _stepped(self, step: Step, value: State, version: int) -> State:
        try:
            made = step(value)
        except Exception as error:  # users' functions raise anything
            detail = f"{self._name(step)} of {self._agent} raised {type(error).__name__}: {error}"
            raise refuse("STATE_VERSION", detail, **self._about(version), error=str(error)) from error
        if not isinstance(made, dict):
            detail = f"{self._name(step)} of {self._agent} must answer a dict, not {type(made).__name__}"
            raise refuse("STATE_VERSION", detail, **self._about(version))
        return made

    def _written(self, value: State, version: int) -> bytes:
        try:
            return orjson.dumps(value)
        except TypeError as error:
            detail = f"what the migrations of {self._agent}.state made is no JSON: {error}"
            raise refuse("STATE_VERSION", detail, **self._about(version), error=str(error)) from error

    def _no_way(self, version: int, at: int) -> Exception:
        newer = at > self.current
        mark, to = ("downgrade", at - 1) if newer else ("migration", at + 1)
        detail = (
            f"the stored state of {self._agent} has version {version}, {'newer' if newer else 'older'} than the code's"
            f" {self.current}, and no @{mark}({at}) leads from {at} to {to}"
        )
        return refuse("STATE_VERSION", detail, **self._about(version), missing=f"{mark}({at})")

    def _name(self, step: Step) -> str:
        return f"@{'migration' if step.after > step.before else 'downgrade'}({step.before})"

    def _about(self, version: int) -> dict[str, Any]:
        return {"agent": self._agent, "stored": version, "current": self.current}


def _declared(agent: type) -> int:
    version = getattr(agent, "state_version", FIRST)
    if not isinstance(version, int) or isinstance(version, bool) or not FIRST <= version < 2**31:
        detail = f"{agent.__qualname__}.state_version must be a whole number of at least {FIRST}, not {version!r}"
        raise refuse("INVALID_CODE", detail, agent=agent.__qualname__)
    return version


def _steps(agent: type, current: int) -> Mapping[int, Step]:
    """The steps by where they begin: up from below the current version, down from above."""
    found: dict[int, Step] = {}
    for name, value in inspect.getmembers_static(agent):
        step = getattr(value, "__func__", value)
        if not isinstance(step, Step):
            continue
        up = step.after > step.before
        fits = FIRST <= step.before < current if up else step.before > current
        if not fits or step.before in found:
            why = "is there twice" if step.before in found else f"leads away from state_version = {current}"
            detail = f"{agent.__qualname__}.{name}: @{'migration' if up else 'downgrade'}({step.before}) {why}"
            raise refuse("INVALID_CODE", detail, agent=agent.__qualname__, function=name)
        found[step.before] = step
    return found
