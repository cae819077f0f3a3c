"""Runs of schemathesis against one target: their configuration, what they found, what they reached."""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure, ServerError
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData

from fuzz import checks, steering  # noqa: F401 - the hooks of steering are registered by importing it
from fuzz.deletions import looks, name_of
from fuzz.rules import EXCLUDED, LIVES, UNFORESEEN

PHASES = ("examples", "coverage", "fuzzing", "stateful")
WIDEST = "resources.propose"  # its schema holds the manifests of all kinds, and nearly half of all bounds
ROUNDS_MAX = 8  # of walks, where one round has not seen enough


@dataclass(frozen=True)
class Bound:
    """How far a run looks: examples for an operation, walks over all operations and through each life, their steps.

    With `seconds`, which are for the whole of it, it goes round until they are over.
    """

    examples: int = 10
    walks: int = 10
    lives: int = 10
    steps: int = 16
    seconds: int | None = None
    phases: tuple[str, ...] = PHASES

    def part(self, of_seconds: float, *phases: str) -> "Bound":
        seconds = None if self.seconds is None else max(1, int(self.seconds * of_seconds))
        return replace(self, seconds=seconds, phases=tuple(it for it in phases if it in self.phases))


@dataclass(frozen=True)
class Target:
    """Where a plane is reached: in process, or at a url."""

    url: str
    token: str
    document: dict[str, Any]
    app: Any = None


@dataclass
class Report:
    """What was found and reached."""

    seed: int
    findings: dict[tuple[str, str, str], str] = field(default_factory=dict)
    cases: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    looks: int = 0  # at what a committed plan had deleted
    revoked: int = 0  # calls with a token that had been revoked
    seconds: float = 0.0

    def text(self) -> str:
        """For a person."""
        counts = ", ".join(f"{phase} {count}" for phase, count in self.cases.items())
        after = f"{self.looks} looks at what was deleted, {self.revoked} calls with a revoked token"
        lines = [f"{self.cases.total()} requests ({counts}) in {self.seconds:.0f} s, {after}, seed {self.seed}"]
        for (operation, check, title), how in self.findings.items():
            lines.append(f"\n{check} at {operation}: {title}\n{how}")
        return "\n".join(lines)

    def never_accepted(self) -> set[str]:
        """Operations that were called, and never with success: the run is blind behind them."""
        return set(self.refused) - set(self.accepted)


Enough = Callable[[Report], bool]


def fuzz(
    target: Target,
    seed: int,
    bound: Bound,
    *,
    only: Collection[str] = (),
    alike: Collection[str] = (),
    share: float = 1.0,
    enough: Enough = lambda _: True,
) -> Report:
    """All phases over all operations; then walks through the life of each kind alone, which lead deeper.

    Of operations that are `alike`, since their schemas are a part of another's, the bounds are left out; of those of
    the widest one a `share` is tried, which the seed chooses. `only` narrows it to some operations, and to the lives
    that lie within them. The walks go round with other seeds until the report
    is `enough`, `ROUNDS_MAX` times at most: ids and times that a plane answers with steer a walk too, so the same seed
    does not always lead as deep.
    """
    report, began, tried = Report(seed), time.monotonic(), checks.TRIED["tokens.revoke"]
    for phases in ([it for it in PHASES if it != "coverage"], ["coverage"]):
        whole = _schema(target, seed, bound.part(0.3, *phases))
        whole = whole.include(operation_id=list(only)) if only else whole
        if phases == ["coverage"]:
            whole.hook(_sample(seed, share))
            whole = whole.exclude(operation_id=list(alike)) if alike else whole
        _run(whole, report)
    lives = [names for names in LIVES.values() if not only or set(names) <= set(only)]
    part = replace(bound.part(0.4 / max(1, len(lives)), "stateful"), walks=bound.lives)
    for offset in range(ROUNDS_MAX if part.phases else 0):
        for number, names in enumerate(lives, 1):
            schema = _schema(target, seed + number + offset * len(lives), part)
            _run(schema.include(operation_id=list(names)), report)
        report.revoked = checks.TRIED["tokens.revoke"] - tried
        if enough(report):
            break
    report.seconds, report.revoked = time.monotonic() - began, checks.TRIED["tokens.revoke"] - tried
    return report


def _schema(target: Target, seed: int, bound: Bound) -> Any:
    """The document under a configuration, with its app."""
    schema = schemathesis.openapi.from_dict(target.document, config=_configuration(target, seed, bound))
    schema.app = target.app
    schema.hook(filter_failure)
    return schema


def _configuration(target: Target, seed: int, bound: Bound) -> SchemathesisConfig:
    """Everything on, but what `rules` leaves out."""
    phases: dict[str, Any] = {name: {"enabled": name in bound.phases} for name in PHASES}
    phases["fuzzing"]["generation"] = {"max-examples": bound.examples}
    phases["stateful"] |= {"generation": {"max-examples": bound.walks}, "max-steps": bound.steps}
    given: dict[str, Any] = {
        "seed": seed,
        "base-url": target.url,
        "headers": {"Authorization": f"Bearer {target.token}"},
        "continue-on-failure": True,
        "request-timeout": 60,
        "cache": {"enabled": False},
        "generation": {"database": "none", "no-shrink": bound.seconds is None},
        "checks": {name: {"enabled": False} for name in EXCLUDED if name != "max_response_time"}
        | {"positive_data_acceptance": {"expected-statuses": ["2xx", *UNFORESEEN]}},
        "phases": phases,
    }
    if bound.seconds is not None:
        given["max-time"] = bound.seconds
    return SchemathesisConfig.from_dict(given)


def _sample(seed: int, share: float) -> Callable[[HookContext, Case[Any]], bool]:
    """A hook that leaves out some cases of the widest operation, other ones for another seed."""
    chance = random.Random(seed)

    def filter_case(_: HookContext, case: Case[Any]) -> bool:
        return name_of(case) != WIDEST or chance.random() < share

    return filter_case


def filter_failure(_: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """What the document could not have foretold is no failure of it, and another's failure is not ours."""
    if isinstance(failure, ServerError):
        return not checks.of_others(response)
    return not (isinstance(failure, RejectedPositiveData) and checks.beyond_schema(case, response))


def _run(schema: Any, report: Report) -> None:
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _count(report, event)
            report.findings = dict(_failures(event)) | report.findings
        elif isinstance(event, events.NonFatalError):
            report.findings[event.label, "error", event.info.title] = event.info.format()
        elif isinstance(event, events.FatalError):
            raise event.exception


def _count(report: Report, event: events.ScenarioFinished) -> None:
    for case_id, node in event.recorder.cases.items():
        response = event.recorder.find_response(case_id=case_id)
        if response is not None:
            report.cases[event.phase.value] += 1
            counts = report.accepted if response.status_code < 300 else report.refused
            counts[name_of(node.value)] += 1
    if event.phase.value == "stateful":
        steps = [
            (it.value, checks.body_of(event.recorder.find_response(case_id=at)))
            for at, it in event.recorder.cases.items()
        ]
        report.looks += looks(steps)


def _failures(event: events.ScenarioFinished) -> Iterator[tuple[tuple[str, str, str], str]]:
    """What failed, with how to make it fail again."""
    for case_id, nodes in event.recorder.checks.items():
        response = event.recorder.find_response(case_id=case_id)
        told = f"{response.status_code} {response.content[:600]!r}" if response is not None else "no answer"
        for node in nodes:
            if (info := node.failure_info) is not None:
                key = info.failure.operation or "run", node.name, info.failure.title
                yield key, f"{event.phase.value}: {info.failure.message}\n{info.code_sample}\n{told}"
