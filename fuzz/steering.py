"""What keeps a run going: waits are cut short, its own token and its hosts stay good. Nothing else is touched."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core import NOT_SET
from schemathesis.generation.meta import StatefulPhaseData

from fuzz.deletions import name_of
from fuzz.rules import CODE, ENTRYPOINT, REPLICAS_MAX, WAIT_S_MAX, WAITS, WAITS_UNASKED

PROTECTED: set[str] = set()  # ids of tokens that runs live on
KEPT: set[str] = set()  # hosts and nodes that nobody would start again
ELSE = "tok_0000000000000000"
ELSEWHERE = "elsewhere"


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Applied to every request of every phase."""
    _ask_for_little(case)
    if _valid_in_a_walk(case):
        _make_it_run(case.body)
    for values in _objects(case):
        _shorten(values)
        if values.get("token_id") in PROTECTED:
            values["token_id"] = ELSE
        for name in ("host_id", "node"):
            if isinstance(value := values.get(name), str) and value in KEPT:
                values[name] = ELSEWHERE


def _ask_for_little(case: Case[Any]) -> None:
    """Say how long to wait where the default is long."""
    query = case.query or {}
    name: Any = name_of(case)
    body: Any = {} if case.body is NOT_SET else case.body
    if name == "operations.call" and isinstance(body, dict):
        name, body = body.get("name"), body.get("arguments")
    elif name == "call_any":
        name = (case.path_parameters or {}).get("operation")
    elif name == "changes.wait":
        body = case.query = query
    if isinstance(name, str) and name in WAITS_UNASKED and isinstance(body, dict):
        body.setdefault("timeout_s", WAITS["timeout_s"])
        if case.body is NOT_SET and case.method == "POST":
            case.body, case.media_type = body, "application/json"


def _valid_in_a_walk(case: Case[Any]) -> bool:
    meta = case.meta
    return meta is not None and meta.generation.mode.is_positive and isinstance(meta.phase.data, StatefulPhaseData)


def _make_it_run(body: Any) -> None:
    """Code that runs and few replicas, in manifests that have theirs; whatever else they say stays."""
    found = [body.get("manifest"), *_list(body.get("manifests"))] if isinstance(body, dict) else []
    for spec in [it["spec"] for it in found if isinstance(it, dict) and isinstance(it.get("spec"), dict)]:
        if isinstance(replicas := spec.get("replicas"), int) and replicas > REPLICAS_MAX:
            spec["replicas"] = REPLICAS_MAX
        template = spec.get("template")
        for inner in (spec, template.get("spec") if isinstance(template, dict) else None):
            if isinstance(inner, dict) and "code" in inner and inner.get("runtime") != "llm":
                inner |= {"code": CODE, "entrypoint": ENTRYPOINT}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(case: Case[Any]) -> list[dict[str, Any]]:
    """Wherever fields of an operation's input can stand."""
    body = case.body if isinstance(case.body, dict) else {}
    found = [case.query, case.path_parameters, body, body.get("arguments")]
    return [it for it in found if isinstance(it, dict)]


def _shorten(values: dict[str, Any]) -> None:
    """Cut a wait that is allowed down to a short one; what is not allowed stays as it is."""
    for name, most in WAITS.items():
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and most < value <= WAIT_S_MAX:
            values[name] = most
