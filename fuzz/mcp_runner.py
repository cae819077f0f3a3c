"""Fuzzing MCP: every tool of both endpoints, in every version, with valid and hostile arguments.

Whatever a client sends as arguments, it gets a result of the tool: an output or a Problem, never an error
of the protocol. It is refused as invalid just when the tool's input schema refuses it. The result is what
`tools/list` said before the calls and says after them, its text says the same as its structure, and each step
in its `next` can be taken at the endpoint where it was read; of those that only read, some are.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from controlplane.resources.catalogue import OPERATIONS
from fuzz import mcp_answers, mcp_promise
from fuzz.mcp_arguments import NAMES, hostile, shortened, valid_text
from fuzz.mcp_report import McpReport
from fuzz.mcp_wire import ENDPOINTS, VERSIONS, Wire
from fuzz.rules import CODE, ENTRYPOINT
from mcp_server.hints import to_full, to_intent

IDS = frozenset({"plan_id", "change_id", "message_id", "cursor", "digest", "next_page", "page", "after", "turn_id"})
GIVEN_AS: dict[str | None, str] = {"cursor": "after", "next_page": "page"}
KEPT = 8  # of each kind of id
RESULTS_MAX = 500  # of each tool, to be held against a later list too
STEPS_MAX = 2  # that are taken, of the results of one tool
TOLD_EACH = 3  # that many calls apart, one asks to be told how it goes
EXAMPLE, VALID, HOSTILE, STEP = "example", "valid", "hostile", "step"
Tools = dict[str, Any]


class McpFuzz:
    """A run against one plane, by one principal."""

    def __init__(self, wire: Wire, run_seed: int, foreign: dict[str, list[Any]] | None = None) -> None:
        self._wire = wire
        self.report = McpReport(run_seed)
        self.known: dict[str, list[Any]] = {
            "name": list(NAMES),
            "namespace": ["default", "elsewhere"],
            "code": [CODE],
            "entrypoint": [ENTRYPOINT],
            "files": [CODE["files"]],
            "agent": ["echo"],
        }
        for name, values in (foreign or {}).items():
            self.known.setdefault(name, []).extend(values)
        self._lists: list[dict[tuple[str, str], Tools]] = []
        self._results: dict[tuple[str, str], dict[str, Any]] = {}
        self._calls = 0
        self._steps: deque[tuple[str, dict[str, Any]]] = deque()
        self._steps_of: Counter[tuple[str, str]] = Counter()

    def look(self) -> None:
        """List all tools now; results are held against each of the lists."""
        self._lists.append({(e, v): self._wire.tools(e, v) for e in ENDPOINTS for v in VERSIONS})

    def run(self, examples: int, *, until: float | None = None, only: frozenset[str] | None = None) -> None:
        """Call every tool, each call in the next version; the list that ended a run before begins this one."""
        if not self._lists:
            self.look()
        self.examples(only)
        rounds = 0
        while rounds == 0 or (until is not None and time.monotonic() < until):
            for endpoint in ENDPOINTS:
                for name, tool in self._lists[-1][endpoint, VERSIONS[-1]].items():
                    if only is None or name in only:
                        self._try(
                            endpoint, name, tool["inputSchema"], examples, self.report.seed + len(self._lists) + rounds
                        )
            rounds += 1
        self.look()

    def examples(self, only: frozenset[str] | None = None) -> None:
        """Call every operation with its example, by the tool of each endpoint that does it."""
        for operation in OPERATIONS.values():
            for endpoint, translate in (("/mcp", to_intent), ("/mcp/full", to_full)):
                tool, arguments = translate(operation, operation.example)
                if only is not None and tool not in only:
                    continue
                self.one(endpoint, tool, json.dumps(shortened(arguments, self._schema(endpoint, tool))), EXAMPLE)

    def finish(self) -> McpReport:
        """Hold every result against every list, earlier and later."""
        for (endpoint, name), results in self._results.items():
            told = [
                tools[name]["outputSchema"] for it in self._lists for (at, _), tools in it.items() if at == endpoint
            ]
            for schema in {mcp_promise.canonical(it): it for it in told}.values():
                validator = mcp_promise.validator(schema)
                for text, structure in results.items():
                    for error in validator.iter_errors(structure):
                        self._found(endpoint, name, "not what the list says", f"{error.message[:600]}\n{text[:600]}")
        return self.report

    def _schema(self, endpoint: str, name: str, which: str = "inputSchema") -> dict[str, Any]:
        found: dict[str, Any] = self._lists[-1][endpoint, VERSIONS[-1]][name][which]
        return found

    def _try(self, endpoint: str, name: str, schema: dict[str, Any], examples: int, run_seed: int) -> None:
        for how, strategy in (
            (VALID, valid_text(name, schema, self.known)),
            (HOSTILE, hostile(name, schema, self.known)),
        ):
            _draw(strategy, partial(self.one, endpoint, name, how=how), examples, run_seed)
        while self._steps:
            at, step = self._steps.popleft()
            text = json.dumps(shortened(step["arguments"], self._schema(at, step["tool"])))
            self.report.followed += 1
            self.one(at, step["tool"], text, STEP)

    def one(self, endpoint: str, name: str, arguments: str, how: str = VALID) -> None:
        """One call, and all that must hold of its answer."""
        version, told = VERSIONS[self._calls % len(VERSIONS)], self._calls % TOLD_EACH == 0
        self._calls += 1
        self.report.called[endpoint, name] += 1
        answer = self._wire.call(endpoint, version, name, arguments, told=told)
        self.report.streamed += answer.streamed
        wrong = list(mcp_answers.wrong_frame(answer, told, version))
        structure = mcp_answers.structure_of(answer)
        if structure is not None:
            self._count(endpoint, name, version, structure, how)
            wrong += self._wrong_within(endpoint, name, mcp_promise.read(arguments), structure, how)
        for what in wrong:
            self._found(endpoint, name, what, f"{version} {arguments[:600]}\n{answer.status} {answer.text[:900]}")

    def _count(self, endpoint: str, name: str, version: str, structure: dict[str, Any], how: str) -> None:
        if structure["ok"]:
            self.report.succeeded[endpoint, name] += 1
            if how == VALID:
                self.report.generated[endpoint, name, version] += 1
            _collect(structure["data"], self.known)
        else:
            self.report.reasons[structure["problem"]["reason"]] += 1
            if how == HOSTILE:
                self.report.resisted[endpoint, name, version] += 1

    def _wrong_within(self, endpoint: str, name: str, asked: Any, structure: dict[str, Any], how: str) -> Iterator[str]:
        yield from self._not_as_listed(endpoint, name, structure)
        yield from mcp_answers.wrong_acceptance(mcp_promise.takes(name, self._schema(endpoint, name), asked), structure)
        if structure["ok"]:
            if (error := mcp_promise.wrong_output(endpoint, name, asked, structure["data"])) is not None:
                yield f"not the output of {error}"
        else:
            yield from mcp_answers.wrong_problem(structure["problem"])
            if how == STEP and mcp_answers.of_input(structure["problem"]):
                yield f"a step that is refused: {structure['problem']['reason']}"
        for step in structure["next"] if structure["ok"] else structure["problem"]["next"]:
            yield from self._wrong_step(endpoint, name, step, how)

    def _not_as_listed(self, endpoint: str, name: str, structure: dict[str, Any]) -> Iterator[str]:
        """Kept for the end, where it is held against all lists; what is too much to keep, against the first."""
        kept = self._results.setdefault((endpoint, name), {})
        if len(kept) < RESULTS_MAX:
            kept[json.dumps(structure)] = structure
            return
        validator = mcp_promise.validator(self._schema(endpoint, name, "outputSchema"))
        if (error := next(validator.iter_errors(structure), None)) is not None:
            yield f"not what the list says: {error.message[:200]}"

    def _wrong_step(self, endpoint: str, name: str, step: dict[str, Any], how: str) -> Iterator[str]:
        self.report.hints += 1
        tool = self._lists[-1][endpoint, VERSIONS[-1]].get(step["tool"])
        if tool is None:
            yield f"a step to {step['tool']}, which is no tool here"
            return
        errors = list(mcp_promise.validator(tool["inputSchema"]).iter_errors(step["arguments"]))
        for error in errors:
            yield f"a step to {step['tool']} that can not be taken: {error.message[:200]}"
        if how != STEP and not errors and _reads(tool, step) and self._steps_of[endpoint, name] < STEPS_MAX:
            self._steps_of[endpoint, name] += 1
            self._steps.append((endpoint, step))

    def _found(self, endpoint: str, name: str, what: str, how: str) -> None:
        self.report.findings.setdefault((endpoint, name, what), how)


def _draw(strategy: SearchStrategy[str], call: Callable[[str], None], examples: int, run_seed: int) -> None:
    """Call with so many examples of a strategy, the same ones for the same seed."""
    bounded = settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def called(text: str) -> None:
        call(text)

    seed(run_seed)(bounded(given(strategy)(called)))()


def _reads(tool: dict[str, Any], step: dict[str, Any]) -> bool:
    """Whether a step changes nothing."""
    called = OPERATIONS.get(str(step["arguments"].get("name"))) if step["tool"] == "operations_call" else None
    return bool(tool["annotations"]["readOnlyHint"]) or (called is not None and called.effect == "read")


def _collect(data: Any, known: dict[str, list[Any]]) -> None:
    """Ids that were answered, to be given again."""
    if isinstance(data, list):
        for part in data[:3]:
            _collect(part, known)
    elif isinstance(data, dict):
        ids = IDS | {"token_id"} if "token" in data else IDS  # of a token just made: others are not ours to revoke
        for name, value in data.items():
            if name in ids and isinstance(value, str):
                seen = known.setdefault(GIVEN_AS.get(name) or name, [])
                if value not in seen:
                    seen[KEPT - 1 :] = [value]
            else:
                _collect(value, known)
