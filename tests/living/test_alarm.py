"""An agent that is kept awake by its own alarm says so, and sleeps in between if it may."""

import pytest

from schemas.calls import Named, SendInput
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio
ALARM = "timer alarm (every 0.05 s)"


async def test_an_agent_kept_awake_by_its_own_alarm_says_so(living: Living) -> None:
    """Its window never passes before the timer is due: both are told, as what the timer began is."""
    await living.agent("restless", "Alarm", suspend_after_ms=2_000)
    await living.call("agents.send", SendInput(name="restless"))
    said: list[str] = []

    async def both() -> bool:
        seen = await living.call("agents.inspect", Named(name="restless"))
        said.append(seen.why_awake or "")
        idle = [it for it in said if "suspend_after_ms (2000)" in it and f"{ALARM} is due in" in it]
        return bool(idle) and any(f"begun by {ALARM}" in it for it in said)

    await living.until(both)
    seen = await living.call("agents.inspect", Named(name="restless"))
    assert [(it.name, it.every_s, it.cron, it.missed) for it in seen.timers] == [("alarm", 0.05, None, "fire_once")]


async def test_an_agent_that_need_not_be_kept_sleeps_between_its_alarms(living: Living) -> None:
    """With suspend_after_ms 0 it is acquired for each firing, for that reason, and is a row again after it."""
    await living.agent("light", "Alarm", suspend_after_ms=0)
    await living.call("agents.send", SendInput(name="light"))
    said: list[str | None] = []
    epochs: set[int] = set()

    async def woken_and_asleep() -> bool:
        seen = await living.call("agents.inspect", Named(name="light"))
        said.append(seen.why_awake)
        epochs.add(seen.epoch)
        return len(epochs) > 3 and None in said and any(ALARM in (it or "") for it in said)

    await living.until(woken_and_asleep)
