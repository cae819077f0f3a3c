"""Whatever an effector says and whatever is told of it: what was sent has a receipt, so that no turn waits for ever."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from controlplane.economy.accounts import Work
from controlplane.economy.meters import What, Who
from controlplane.effects import holding
from controlplane.effects.execution import Execution
from controlplane.effects.handing import Handing
from controlplane.effects.holding import Holding
from controlplane.effects.reading import Away
from controlplane.effects.sending import Act, Unsent, doubt_of, receipt_of
from controlplane.effects.turns import Turns
from controlplane.resources.problems import refuse
from schemas.ports import EffectCall, Link
from tests.gate.running import true
from tests.gate.test_sending import Broken, Nothing

pytestmark = pytest.mark.anyio


class Unsayable(Exception):
    """Has no words."""

    def __str__(self) -> str:
        raise LookupError


def act(**more: Any) -> Act:
    link = Link("far", spec=None, secret="correct horse")  # type: ignore[arg-type]
    return Act(Broken(1.0), Nothing(), None, EffectCall("k", link), **more)


def frame_of() -> Any:
    return SimpleNamespace(
        turn_id="turn_1", branch="0", position=0, epoch=0, arguments=b"{}", effect="notes.broken", connection=""
    )


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
    slot: Any = SimpleNamespace(who=SimpleNamespace(), labels={}, uid="a")
    execution._acted(await ended(outcome), slot, frame_of(), given, 0.0)
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


def away(*_: Any) -> Any:
    raise Away("the database does not answer")


async def test_a_receipt_is_committed_also_where_the_database_can_not_say_who_waits_for_it() -> None:
    """Budgets are read anew when they have changed; until they can be, nobody is patient."""
    commits: list[dict[str, Any]] = []
    slot: Any = SimpleNamespace(
        turn=SimpleNamespace(given=()), writing=False, unsure=None, effects={("0", 0)}, who=("n", "a"), labels={}
    )
    node: Any = SimpleNamespace(effectors={}, clock=lambda: 1.0, budgeting=SimpleNamespace(counts=away))
    node.turns = SimpleNamespace(running=lambda _: slot)
    node.committer = SimpleNamespace(waiting=0)
    node.commit = lambda *_, **more: commits.append(more)
    handing = Handing(node)
    node.handing = SimpleNamespace(
        hears=handing.hears, patient=handing.patient, confirmed=lambda *_: lambda committed: None
    )
    used = Work(Who("n", "a"), {}, What(), {})
    Execution(node)._confirm(slot, frame_of(), "succeeded", b"1", used, [], act())
    assert commits == [{"patient": False}]


async def test_a_replay_that_waited_for_what_was_not_sent_is_not_left_waiting() -> None:
    """Where the database is away just then, the turn is its host's no more: another attempt asks again."""
    closed: list[bool] = []
    host = SimpleNamespace(wire=SimpleNamespace(close=lambda: closed.append(True)))
    slot: Any = SimpleNamespace(
        turn=SimpleNamespace(turn_id="turn_1"), epoch=0, host=host, effects={("0", 0)}, address="n/a"
    )
    node: Any = SimpleNamespace(effectors={}, reader=SimpleNamespace(one=away))
    node.budgeting = SimpleNamespace(over=lambda *_: None)
    node.turns, node.handing, slot.writing = Turns(node), Handing(node), False
    execution, frame = Execution(node), frame_of()
    key = ("turn_1", "0", 0)
    execution._awaited[key] = slot, slot.turn, frame
    execution._acted(await ended(Unsent()), slot, frame, act(), 0.0)
    assert (closed, key in execution._unsent) == ([True], True)


async def test_what_is_in_doubt_is_held_once_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a turn that has ended: it is never dropped in silence."""
    monkeypatch.setattr(holding, "AGAIN_S", 0.0)
    answers, commits = [away, lambda *_: ("n", "a"), lambda *_: None], []
    node: Any = SimpleNamespace(clock=lambda: 1.0, bounds=SimpleNamespace(hold_s=1.0))
    node.turns = SimpleNamespace(running=lambda *_: None)
    node.reader = SimpleNamespace(one=lambda *given: answers.pop(0)(*given))
    node.commit = lambda unit, *_: commits.append(unit)
    Holding(node).hold(frame_of(), "was cut off")
    await true(lambda: commits == ["hold"])
