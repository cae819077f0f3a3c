"""How often one effect is sent."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from controlplane.effects.sending import ATTEMPTS_MAX, RESULT_BYTES_MAX, Act, send
from schemas.endpoint import ConnectionSpec
from schemas.ports import Doubt, EffectCall

pytestmark = pytest.mark.anyio


class Nothing(BaseModel):
    """No arguments."""


class Broken:
    """Is sent, and never says what came of it."""

    name, protocol, timeout_s = "notes.broken", None, 5.0
    arguments: type[BaseModel] = Nothing
    reads_only = False

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s, self.sent = lifetime_s, 0
        self.does: Callable[[], Any] = _cut_off

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return self.lifetime_s

    async def ready(self) -> None:
        pass

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        self.sent += 1
        return self.does()


def _cut_off() -> Any:
    raise Doubt("was cut off")


def _bug() -> Any:
    raise LookupError("a bug")


def _cancelled() -> Any:
    raise asyncio.CancelledError


def _deep() -> Any:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("lifetime_s", "age_s", "sent"), [(0, 0, 1), (4, 0, 1), (3600, 0, ATTEMPTS_MAX), (3600, 3596, 1)]
)
async def test_nothing_is_sent_again_when_its_key_may_be_forgotten(lifetime_s: float, age_s: float, sent: int) -> None:
    """Counted from when it was first written ahead, to the latest moment of the repetition."""
    effector = Broken(lifetime_s)
    with pytest.raises(Doubt):
        await send(Act(effector, Nothing(), None, age_s=age_s), lambda: None, lambda _: None)
    assert effector.sent == sent


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (_bug, "LookupError"),
        (_cancelled, "cancelled"),
        (lambda: {1, 2}, "no JSON"),
        (_deep, "no JSON"),
        (lambda: "a" * RESULT_BYTES_MAX, "at most"),
    ],
    ids=["bug", "cancelled", "no json", "deep", "large"],
)
async def test_what_breaks_once_it_may_have_been_sent_is_in_doubt(does: Callable[[], Any], why: str) -> None:
    """A bug of an effector, and an answer that can not be kept, do not say that nothing happened."""
    effector = Broken(0)
    effector.does = does
    with pytest.raises(Doubt, match=why):
        await send(Act(effector, Nothing(), None), lambda: None, lambda _: None)
    assert effector.sent == 1
