"""How often one effect is sent."""

from typing import Any

import pytest
from pydantic import BaseModel

from controlplane.effects.sending import ATTEMPTS_MAX, Act, send
from schemas.connection import ConnectionSpec
from schemas.ports import Doubt, EffectCall

pytestmark = pytest.mark.anyio


class Nothing(BaseModel):
    """No arguments."""


class Broken:
    """Is sent, and never says what came of it."""

    name, protocol, timeout_s = "notes.broken", None, 5.0
    arguments: type[BaseModel] = Nothing

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s, self.sent = lifetime_s, 0

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return self.lifetime_s

    async def ready(self) -> None:
        pass

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        self.sent += 1
        raise Doubt("was cut off")


@pytest.mark.parametrize(
    ("lifetime_s", "age_s", "sent"), [(0, 0, 1), (4, 0, 1), (3600, 0, ATTEMPTS_MAX), (3600, 3596, 1)]
)
async def test_nothing_is_sent_again_when_its_key_may_be_forgotten(lifetime_s: float, age_s: float, sent: int) -> None:
    """Counted from when it was first written ahead, to the latest moment of the repetition."""
    effector = Broken(lifetime_s)
    with pytest.raises(Doubt):
        await send(Act(effector, Nothing(), None, age_s=age_s), lambda: None, lambda _: None)
    assert effector.sent == sent
