"""Whatever an effector says and whatever is told of it: what was sent has a receipt, so that no turn waits for ever."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from controlplane.effects.execution import Execution
from controlplane.effects.sending import Act, doubt_of, receipt_of
from controlplane.resources.problems import refuse
from schemas.ports import EffectCall, Link
from tests.gate.test_sending import Broken, Nothing

pytestmark = pytest.mark.anyio


class Unsayable(Exception):
    """Has no words."""

    def __str__(self) -> str:
        raise LookupError


def act(**more: Any) -> Act:
    link = Link("far", spec=None, secret="correct horse")  # type: ignore[arg-type]
    return Act(Broken(1.0), Nothing(), None, EffectCall("k", link), **more)


async def ended(outcome: Any) -> "asyncio.Task[Any]":
    async def comes() -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    task = asyncio.ensure_future(comes())
    await asyncio.wait([task])
    return task


@pytest.mark.parametrize("telling", [None, "breaks"])
@pytest.mark.parametrize(
    ("outcome", "used"),
    [
        (b"1", {}),
        (b"1", {"tokens_in": "many", 7: 1, "n\x00": 1.0, "x": 10**400, "y": float("nan"), "tokens_out": 2}),
        (b"1", ["no meters"]),
        (RuntimeError("\ud83d"), {}),
        (refuse("EFFECT_FAILED", "no", said="\ud83d", number=10**30), {}),
        (Unsayable(), {}),
    ],
)
async def test_what_has_ended_is_confirmed(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, used: Any, telling: str | None
) -> None:
    """Halves of characters, meters that are none, and a last part that can not be told."""
    node: Any = SimpleNamespace(effectors={})
    execution, confirmed = Execution(node), []
    monkeypatch.setattr(execution, "_confirm", lambda *given: confirmed.append(given))

    def breaks(_: str) -> Any:
        raise TypeError("str is not valid UTF-8")

    given = act(used=used, telling=SimpleNamespace(last=breaks) if telling else None)
    frame: Any = SimpleNamespace(
        turn_id="turn_1", branch="0", position=0, arguments=b"{}", effect="notes.broken", connection=""
    )
    slot: Any = SimpleNamespace(who=SimpleNamespace(), labels={}, uid="a")
    execution._acted(await ended(outcome), slot, frame, given, 0.0)
    ((_, _, said, told, work, last, _),) = confirmed
    assert (said, last) == ("succeeded" if outcome == b"1" else "failed", [])
    assert orjson.loads(told) == 1 or orjson.loads(told)["reason"] == "EFFECT_FAILED"
    assert ("tokens_out" in work.amounts) == (isinstance(used, dict) and "tokens_out" in used)
    assert not {"tokens_in", 7, "n\x00", "x", "y"} & set(work.amounts)


async def test_a_failure_is_cut_when_the_secret_is_gone() -> None:
    """One across the cut would be found no more."""
    task = await ended(RuntimeError("x" * 960 + "correct horse, and so on"))
    _, told = receipt_of(task, act())
    assert "correct" not in orjson.loads(told)["detail"]
    assert doubt_of("\ud83d\ude00 correct horse", act()) == "😀 [secret]"
