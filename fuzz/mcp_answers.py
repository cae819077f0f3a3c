"""What must hold of one answer of a tool, whatever its arguments were."""

import json
from collections.abc import Iterator
from typing import Any

from controlplane.resources.problems import REASONS
from fuzz.checks import numberless
from fuzz.mcp_wire import ID, MODERN, Answer
from fuzz.rules import BEYOND_SCHEMA, BEYOND_SCHEMA_AT, BEYOND_SCHEMA_OF_TEXT, UNFORESEEN

ENVELOPE = ("ok", "summary", "ref", "as_of", "data", "untrusted_paths", "truncated", "next")
Structure = dict[str, Any]


def wrong_frame(answer: Answer, told: bool, version: str) -> Iterator[str]:
    """What is wrong around the structure.

    Nobody is answered by a stream unasked; who asks is, but for the newest version, where an answer that has
    nothing to tell before may come as it is.
    """
    message = answer.json
    if answer.status != 200 or not isinstance(message, dict) or "result" not in message:
        yield "no result of the tool"
        return
    if message.get("id") != ID:
        yield "another id"
    if answer.streamed and not told:
        yield "a stream, unasked"
    if told and not answer.streamed and version != MODERN:
        yield "no stream for who asked to be told"
    result = message["result"]
    structure, contents = result.get("structuredContent"), result.get("content", [])
    if len(contents) != 1 or json.loads(contents[0].get("text", "null")) != structure:
        yield "text and structure differ"
    if not isinstance(structure, dict):
        yield "no structure"
        return
    ok = structure.get("ok")
    if ok is not (not result.get("isError")) or set(structure) != (set(ENVELOPE) if ok else {"ok", "problem"}):
        yield "not the shape of a result"


def structure_of(answer: Answer) -> Structure | None:
    """The structure, if the answer has one of the right shape."""
    message = answer.json
    result = message.get("result") if answer.status == 200 and isinstance(message, dict) else None
    found = result.get("structuredContent") if isinstance(result, dict) else None
    if not isinstance(found, dict):
        return None
    return found if set(found) == (set(ENVELOPE) if found.get("ok") else {"ok", "problem"}) else None


def wrong_problem(problem: dict[str, Any]) -> Iterator[str]:
    """A Problem has a known reason, and is never the plane's own break."""
    if problem["reason"] not in REASONS:
        yield "an unknown reason"
    if problem["reason"] == "INTERNAL":
        yield "INTERNAL"


def wrong_acceptance(taken: bool, structure: Structure) -> Iterator[str]:
    """What the schemas take is not called invalid, and what they do not take is not done."""
    if structure["ok"]:
        if not taken:
            yield "taken against its schema"
    elif taken and not _foreseen(structure["problem"]):
        yield f"refused against its schema: {structure['problem']['reason']}"


def of_input(problem: dict[str, Any]) -> bool:
    """Whether a Problem says that the input is wrong, and not what is stored, allowed or broken."""
    return problem["status"] < 500 and str(problem["status"]) not in UNFORESEEN


def _foreseen(problem: dict[str, Any]) -> bool:
    """Whether valid arguments may meet it."""
    reason, field = problem["reason"], problem["field"]
    at = reason, numberless(field if field is None else field.removeprefix("/arguments"))
    beyond = reason in BEYOND_SCHEMA or at in BEYOND_SCHEMA_AT or reason in BEYOND_SCHEMA_OF_TEXT
    return beyond or not of_input(problem)
