"""What keeps a run going: waits are cut short, and the run's own token stays good. Nothing else is touched."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core import NOT_SET

from fuzz.checks import name_of
from fuzz.rules import WAIT_S_MAX, WAITS, WAITS_UNASKED

PROTECTED: set[str] = set()  # ids of tokens that runs live on
ELSE = "tok_0000000000000000"


@schemathesis.hook
def before_call(_: HookContext, case: Case, __: dict[str, Any]) -> None:
    """Applied to every request of every phase."""
    _ask_for_little(case)
    for values in _objects(case):
        _shorten(values)
        if values.get("token_id") in PROTECTED:
            values["token_id"] = ELSE


def _ask_for_little(case: Case) -> None:
    """Say how long to wait where the default is long."""
    name, query = name_of(case), case.query or {}
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


def _objects(case: Case) -> list[dict[str, Any]]:
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
