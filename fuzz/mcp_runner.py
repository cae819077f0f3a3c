"""Fuzzing MCP: every tool of both endpoints, in every version, with valid and hostile arguments.

Whatever a client sends as arguments, it gets a result of the tool: an output or a Problem, never an error
of the protocol. The result is what `tools/list` said before the calls and says after them, its text says
the same as its structure, and each step in its `next` can be taken at the endpoint where it was read.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from hypothesis import HealthCheck, Phase, given, seed, settings

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.problems import REASONS
from fuzz.mcp_arguments import NAMES, hostile, shortened, valid_text
from fuzz.mcp_wire import ENDPOINTS, ID, VERSIONS, Answer, Wire
from mcp_server.hints import to_full, to_intent

IDS = frozenset({"plan_id", "change_id", "message_id", "cursor", "digest", "next_page", "page", "after", "turn_id"})
GIVEN_AS: dict[str | None, str] = {"cursor": "after", "next_page": "page"}
KEPT = 8  # of each kind of id
RESULTS_MAX = 500  # of each tool, to be held against a later list too
Findings = dict[tuple[str, str, str], str]
Tools = dict[str, Any]
ENVELOPE = ("ok", "summary", "ref", "as_of", "data", "untrusted_paths", "truncated", "next")


@dataclass
class McpReport:
    """What was found and reached."""

    seed: int
    findings: Findings = field(default_factory=dict)
    called: Counter[tuple[str, str]] = field(default_factory=Counter)
    succeeded: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    hints: int = 0

    def text(self) -> str:
        """For a person."""
        calls, good = self.called.total(), self.succeeded.total()
        head = f"{calls} calls, {good} with an output, {self.hints} steps, seed {self.seed}"
        found = [f"\n{what} at {endpoint} {tool}:\n{how}" for (endpoint, tool, what), how in self.findings.items()]
        return "\n".join([head, *found])

    def never_accepted(self) -> set[str]:
        """Tools that were called, and never with an output: the run is blind behind them."""
        return {tool for endpoint, tool in set(self.called) - set(self.succeeded)}


class McpFuzz:
    """A run against one plane, by one principal."""

    def __init__(self, wire: Wire, run_seed: int, foreign: dict[str, list[Any]] | None = None) -> None:
        self._wire = wire
        self.report = McpReport(run_seed)
        self.known: dict[str, list[Any]] = {"name": list(NAMES), "namespace": ["default", "elsewhere"]}
        for name, values in (foreign or {}).items():
            self.known.setdefault(name, []).extend(values)
        self._lists: list[dict[tuple[str, str], Tools]] = []
        self._results: dict[tuple[str, str], dict[str, Any]] = {}

    def look(self) -> None:
        """List all tools now; results are held against each of the lists."""
        self._lists.append({(e, v): self._wire.tools(e, v) for e in ENDPOINTS for v in VERSIONS})

    def run(self, examples: int, *, until: float | None = None, only: frozenset[str] | None = None) -> None:
        """Call every tool, each example in another version."""
        self.look()
        self.examples(only)
        rounds = 0
        while rounds == 0 or (until is not None and time.monotonic() < until):
            for endpoint in ENDPOINTS:
                for name, tool in self._lists[-1][endpoint, VERSIONS[-1]].items():
                    if only is None or name in only:
                        self._try(endpoint, name, tool["inputSchema"], examples, self.report.seed + rounds)
            rounds += 1
        self.look()

    def examples(self, only: frozenset[str] | None = None) -> None:
        """Call every operation with its example, by the tool of each endpoint that does it."""
        for number, operation in enumerate(OPERATIONS.values()):
            for endpoint, translate in (("/mcp", to_intent), ("/mcp/full", to_full)):
                tool, arguments = translate(operation, operation.example)
                if only is not None and tool not in only:
                    continue
                schema = self._lists[-1][endpoint, VERSIONS[-1]][tool]["inputSchema"]
                text = json.dumps(shortened(arguments, schema))
                self.one(endpoint, VERSIONS[number % len(VERSIONS)], tool, text)

    def finish(self) -> McpReport:
        """Hold every result against every list, earlier and later."""
        for tools_by in self._lists:
            for (endpoint, _), tools in tools_by.items():
                for (at, name), results in self._results.items():
                    if at != endpoint:
                        continue
                    validator = jsonschema.Draft202012Validator(tools[name]["outputSchema"])
                    for text, structure in results.items():
                        for error in validator.iter_errors(structure):
                            self._found(endpoint, name, "not what the list says", f"{error.message}\n{text[:600]}")
        return self.report

    def _try(self, endpoint: str, name: str, schema: dict[str, Any], examples: int, run_seed: int) -> None:
        versions = iter(_cycle(run_seed))

        def call(text: str) -> None:
            self.one(endpoint, next(versions), name, text)

        for strategy in (valid_text(schema, self.known), hostile(schema, self.known)):
            bounded = settings(
                max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            seed(run_seed)(bounded(given(strategy)(call)))()

    def one(self, endpoint: str, version: str, name: str, arguments: str) -> None:
        """One call, and all that must hold of its answer."""
        self.report.called[endpoint, name] += 1
        answer = self._wire.call(endpoint, version, name, arguments)
        for what in self._wrong(endpoint, name, answer):
            self._found(endpoint, name, what, f"{version} {arguments[:600]}\n{answer.status} {answer.text[:900]}")

    def _wrong(self, endpoint: str, name: str, answer: Answer) -> Iterator[str]:
        message = answer.json
        if answer.status != 200 or not isinstance(message, dict) or "result" not in message:
            yield "no result of the tool"
            return
        if message.get("id") != ID:
            yield "another id"
        result = message["result"]
        structure = result.get("structuredContent")
        contents = result.get("content", [])
        if len(contents) != 1 or json.loads(contents[0].get("text", "null")) != structure:
            yield "text and structure differ"
        if not isinstance(structure, dict):
            yield "no structure"
            return
        kept = self._results.setdefault((endpoint, name), {})
        if len(kept) < RESULTS_MAX:
            kept[contents[0]["text"]] = structure
        elif (error := next(self._validator(endpoint, name).iter_errors(structure), None)) is not None:
            yield f"not what the list says: {error.message[:200]}"
        yield from self._wrong_within(endpoint, name, structure, result.get("isError"))

    def _validator(self, endpoint: str, name: str) -> Any:
        return jsonschema.Draft202012Validator(self._lists[-1][endpoint, VERSIONS[-1]][name]["outputSchema"])

    def _wrong_within(self, endpoint: str, name: str, structure: dict[str, Any], is_error: Any) -> Iterator[str]:
        ok = structure.get("ok")
        if ok is not (not is_error) or set(structure) != (set(ENVELOPE) if ok else {"ok", "problem"}):
            yield "not the shape of a result"
            return
        if ok:
            self.report.succeeded[endpoint, name] += 1
            _collect(structure["data"], self.known)
        problem = structure.get("problem", {})
        if not ok:
            self.report.reasons[problem["reason"]] += 1
            if problem["reason"] not in REASONS:
                yield "an unknown reason"
            if problem["reason"] == "INTERNAL":
                yield "INTERNAL"
        for step in structure["next"] if ok else problem["next"]:
            yield from self._wrong_step(endpoint, step)

    def _wrong_step(self, endpoint: str, step: dict[str, Any]) -> Iterator[str]:
        self.report.hints += 1
        tool = self._lists[-1][endpoint, VERSIONS[-1]].get(step["tool"])
        if tool is None:
            yield f"a step to {step['tool']}, which is no tool here"
            return
        for error in jsonschema.Draft202012Validator(tool["inputSchema"]).iter_errors(step["arguments"]):
            yield f"a step to {step['tool']} that can not be taken: {error.message[:200]}"

    def _found(self, endpoint: str, name: str, what: str, how: str) -> None:
        self.report.findings.setdefault((endpoint, name, what), how)


def _cycle(start: int) -> Iterator[str]:
    while True:
        yield VERSIONS[start % len(VERSIONS)]
        start += 1


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
