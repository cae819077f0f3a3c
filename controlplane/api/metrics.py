"""Metrics of the plane, in Prometheus' text form: calls and their time, by operation and outcome.

Every surface calls operations through `Metered`, so that each call is counted once, whatever it
came by. The outcome of a call is `ok` or the reason of its Problem. Counts are over all namespaces,
and are shown only to principals who may see all of them.
"""

from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from pydantic import BaseModel

from controlplane.feedback.places import Places
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.problems import refuse
from schemas.principal import Principal
from schemas.problem import Refusal

Caller = Callable[[Principal, str, dict[str, Any]], Awaitable[BaseModel]]
Metered = Callable[[Principal, str, dict[str, Any]], Coroutine[Any, Any, BaseModel]]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNKNOWN = "unknown"


class Metrics:
    """One registry a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._calls = Counter(
            "steward_calls", "Calls of operations, by outcome.", ("operation", "outcome"), registry=self._registry
        )
        self._time = Histogram(
            "steward_call_seconds",
            "How long calls took.",
            ("operation",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._counting: dict[tuple[str, str], Counter] = {}
        self._timing = {name: self._time.labels(name) for name in (*OPERATIONS, UNKNOWN)}

    def count(self, operation: str, outcome: str, seconds: float) -> None:
        known = operation if operation in OPERATIONS else UNKNOWN
        counting = self._counting.get((known, outcome))
        if counting is None:
            counting = self._counting[known, outcome] = self._calls.labels(known, outcome)
        counting.inc()
        self._timing[known].observe(seconds)

    def text(self, principal: Principal) -> bytes:
        """All metrics; raises FORBIDDEN for who may not see every namespace."""
        if "*" not in principal.namespaces:
            raise refuse(
                "FORBIDDEN",
                "metrics count over all namespaces; a token for all of them is needed",
                principal=principal.name,
            )
        return generate_latest(self._registry)


def metered(call: Caller, metrics: Metrics) -> Metered:
    """The same calls, counted."""

    async def counted(principal: Principal, name: str, raw: dict[str, Any]) -> BaseModel:
        began, outcome = perf_counter(), "INTERNAL"
        try:
            output = await call(principal, name, raw)
            outcome = "ok"
        except Refusal as refusal:
            outcome = refusal.problem.reason
            raise
        else:
            return output
        finally:
            metrics.count(name, outcome, perf_counter() - began)

    return counted


def bounded(call: Metered, calls: Places) -> Metered:
    """The same calls, as many at once as there are places."""

    async def placed(principal: Principal, name: str, raw: dict[str, Any]) -> BaseModel:
        with calls.held(principal.identity):
            return await call(principal, name, raw)

    return placed
