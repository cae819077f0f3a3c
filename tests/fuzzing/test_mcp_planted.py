"""The fuzzer of MCP sees: each defect that is planted into a good plane is found within the bound of `make test`."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from controlplane.resources.problems import refuse
from mcp_server import calling, intents, results, server
from mcp_server.calling import Tools
from mcp_server.intents import Asked, Intent
from tests.api.plane import Plane, listening
from tests.fuzzing.test_mcp import fuzzed

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

Plant = Callable[[Plane, pytest.MonkeyPatch], None]
ONLY = frozenset({"find", "hosts_list", "agents_list"})
WIRE = results._wire


def _spoiled(spoil: Callable[[dict[str, Any]], dict[str, Any]], *, text: bool = True) -> Plant:
    """A plane whose results are spoiled, with their text or without."""

    def plant(plane: Plane, patch: pytest.MonkeyPatch) -> None:
        def wire(envelope: dict[str, Any], *, is_error: bool) -> dict[str, Any]:
            found = WIRE(envelope, is_error=is_error)
            found["structuredContent"] = spoil(dict(envelope))
            if text:
                found["content"] = [{"type": "text", "text": orjson.dumps(found["structuredContent"]).decode()}]
            return found

        patch.setattr(results, "_wire", wire)

    return plant


def _more_in_data(envelope: dict[str, Any]) -> dict[str, Any]:
    """An output with a field that no schema names."""
    return envelope | {"data": envelope["data"] | {"more": 1}} if envelope["ok"] else envelope


def _step(tool: str, **arguments: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A result with one more step, wherever its steps stand."""
    step = {"tool": tool, "arguments": arguments, "why": "planted"}

    def spoil(envelope: dict[str, Any]) -> dict[str, Any]:
        if envelope["ok"]:
            return envelope | {"next": [step]}
        return envelope | {"problem": envelope["problem"] | {"next": [step]}}

    return spoil


def _broken(plane: Plane, patch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError

    patch.setitem(plane.parts.dispatcher.handlers, "hosts.list", broken)


def _protocol_error(plane: Plane, patch: pytest.MonkeyPatch) -> None:
    """A refusal that comes out as an error of the protocol."""

    def refused(self: Tools, *_: Any) -> Any:
        raise calling._unknown("planted")

    patch.setattr(Tools, "_refused", refused)


def _told_nothing(plane: Plane, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(server, "asks_to_be_told", lambda _: False)


def _understood(intent: Intent) -> Plant:
    """A plane where one tool understands its arguments otherwise."""
    return lambda plane, patch: patch.setitem(intents.INTENTS, "find", intent)


def _refuses(given: dict[str, Any]) -> Asked:
    raise refuse("INVALID_VALUE", "planted", field="/kind")


PLANTED: dict[str, tuple[Plant, str]] = {
    "a refusal is an error of the protocol": (_protocol_error, "no result of the tool"),
    "a handler that breaks": (_broken, "INTERNAL"),
    "a text that says something else": (
        _spoiled(lambda it: it | {"ref": "else"}, text=False),
        "text and structure differ",
    ),
    "a field of another type": (_spoiled(lambda it: it | {"summary": 1} if it["ok"] else it), "not what the list says"),
    "a field too many": (_spoiled(lambda it: it | {"more": 1}), "not the shape of a result"),
    "an output that its list does not know": (_spoiled(_more_in_data), "not what the list says"),
    "an output that its operation does not know": (_spoiled(_more_in_data), "not the output of agents.list"),
    "a tool that takes what its schema refuses": (
        _understood(lambda _: Asked("agents.list", {})),
        "taken against its schema",
    ),
    "a tool that refuses what its schema takes": (_understood(_refuses), "refused against its schema: INVALID_VALUE"),
    "who asks to be told gets one answer": (_told_nothing, "no stream for who asked to be told"),
    "a step to nowhere": (_spoiled(_step("find", kind="Agent", page="x")), "a step that is refused: INVALID_CURSOR"),
    "a step to no tool": (_spoiled(_step("no_such_tool")), "a step to no_such_tool, which is no tool here"),
    "a step that can not be taken": (
        _spoiled(_step("operations_describe")),
        "a step to operations_describe that can not",
    ),
}


@pytest.mark.parametrize("name", list(PLANTED))
async def test_a_planted_defect_is_found(
    anyio_backend: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each kind of defect has its own finding."""
    plant, wanted = PLANTED[name]
    async with listening(sqlite_url) as plane:
        report = await fuzzed(plane, 2, ONLY, lambda: plant(plane, monkeypatch))
    assert any(what.startswith(wanted) for _, _, what in report.findings), report.text()
