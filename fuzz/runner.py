"""One run of schemathesis against one target: its configuration, what it found, what it reached."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData

from fuzz import checks, steering  # noqa: F401 - the hooks of steering are registered by importing it
from fuzz.rules import EXCLUDED

PHASES = ("examples", "coverage", "fuzzing", "stateful")


@dataclass(frozen=True)
class Bound:
    """How long a run looks: examples for each operation and phase, or seconds."""

    examples: int = 10
    walks: int = 10
    seconds: int | None = None
    phases: tuple[str, ...] = PHASES


@dataclass
class Report:
    """What a run found and reached."""

    seed: int
    findings: dict[tuple[str, str, str], str] = field(default_factory=dict)
    cases: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def text(self) -> str:
        """For a person."""
        lines = [f"{sum(self.cases.values())} cases in {self.seconds:.0f} s, seed {self.seed}: {dict(self.cases)}"]
        lines += [f"\n{check} at {operation}: {title}\n{how}" for (operation, check, title), how in self.findings.items()]
        return "\n".join(lines)


def configuration(url: str, token: str, seed: int, bound: Bound) -> SchemathesisConfig:
    """Everything on, but what `rules` leaves out."""
    phases: dict[str, Any] = {name: {"enabled": name in bound.phases} for name in PHASES}
    phases["fuzzing"]["generation"] = {"max-examples": bound.examples}
    phases["stateful"] |= {"generation": {"max-examples": bound.walks}, "max-steps": 12}
    given: dict[str, Any] = {
        "seed": seed,
        "base-url": url,
        "headers": {"Authorization": f"Bearer {token}"},
        "continue-on-failure": True,
        "request-timeout": 60,
        "cache": {"enabled": False},
        "generation": {"database": "none", "no-shrink": bound.seconds is None},
        "checks": {name: {"enabled": False} for name in EXCLUDED if name != "max_response_time"}
        | {"positive_data_acceptance": {"expected-statuses": ["2xx", "403", "404", "409", "410", "413", "429"]}},
        "phases": phases,
    }
    if bound.seconds is not None:
        given["max-time"] = bound.seconds
    return SchemathesisConfig.from_dict(given)


def load(document: dict[str, Any], config: SchemathesisConfig, app: Any = None) -> Any:
    """The schema to run."""
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.app = app
    schema.hook(filter_failure)
    return schema


def filter_failure(_: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """A refusal of valid data that the document could not have foretold is no failure."""
    return not (isinstance(failure, RejectedPositiveData) and checks.beyond_schema(case, response))


def run(schema: Any, seed: int) -> Report:
    """Run all phases, and gather."""
    report, began = Report(seed), time.monotonic()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _gather(report, event)
        elif isinstance(event, events.NonFatalError):
            report.findings[event.label, "error", event.info.title] = event.info.format()
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.EngineFinished):
            for failure in event.failures:
                report.findings["run", type(failure).__name__, failure.title] = failure.message
    report.seconds = time.monotonic() - began
    return report


def _gather(report: Report, event: Any) -> None:
    recorder = event.recorder
    for case_id, node in recorder.cases.items():
        response = recorder.find_response(case_id=case_id)
        if response is None:
            continue
        report.cases[event.phase.value] += 1
        counts = report.accepted if response.status_code < 300 else report.refused
        counts[checks.name_of(node.value)] += 1
    for case_id, nodes in recorder.checks.items():
        for node in nodes:
            if node.failure_info is None:
                continue
            failure, response = node.failure_info.failure, recorder.find_response(case_id=case_id)
            told = f"{response.status_code} {response.content[:600]!r}" if response is not None else "no answer"
            key = failure.operation or "run", node.name, failure.title
            report.findings.setdefault(
                key, f"{event.phase.value}: {failure.message}\n{node.failure_info.code_sample}\n{told}"
            )
