"""Answers as HTTP: outputs as bare JSON, Problems as application/problem+json.

A Problem's `instance` names the call, so that what a client holds and what the log says can be
brought together. Its status comes from its reason; `Retry-After` from its `retry_after_s`.
"""

import math

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from schemas.problem import Problem

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"


def to_json(output: BaseModel) -> bytes:
    """The JSON of a model, in one pass."""
    return output.__pydantic_serializer__.to_json(output)


def answer(output: BaseModel) -> Response:
    """A successful output."""
    return Response(to_json(output), media_type=JSON)


def plain(value: dict[str, object], status: int = 200) -> Response:
    """A small JSON object that is no operation's output."""
    return Response(orjson.dumps(value), status_code=status, media_type=JSON)


def of_call(problem: Problem, call_id: str) -> Problem:
    """The Problem with the call it belongs to."""
    return problem if problem.instance else problem.model_copy(update={"instance": f"urn:steward:call:{call_id}"})


def problem_answer(problem: Problem, call_id: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal."""
    found = of_call(problem, call_id)
    rest = dict(headers or {})
    if found.retry_after_s is not None:
        rest["Retry-After"] = str(max(1, math.ceil(found.retry_after_s)))
    return Response(to_json(found), status_code=found.status, media_type=PROBLEM_JSON, headers=rest)
