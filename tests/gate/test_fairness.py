"""Many agents that are woken at once are admitted fairly between namespaces."""

import statistics
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from controlplane.effects.fairness import WEIGHTS, Turnstile, WeightedLine
from controlplane.effects.node import Bounds
from controlplane.store.tables import AgentRow, InboxRow, ResourceRow
from controlplane.store.unit import Unit
from tests.conftest import SOAK
from tests.gate.running import running
from tests.gate.test_moving import hosts
from tests.gate.zoo import SOURCE

WOKEN = {"a-much": 980, "m-some": 12, "y-little": 4, "z-little": 4}  # by namespace, and found in this order
AT_ONCE = Bounds.acquiring_max


def test_one_of_each_namespace_is_next() -> None:
    """In the order of coming within one, and whoever has none left is not waited for."""
    line: Turnstile[str] = Turnstile()
    for item in ("a1", "a2", "a3", "b1", "a4", "c1", "b2"):
        line.put(item[0], item)
    assert len(line) == 7
    taken = [line.take() for _ in range(4)]
    line.put("b", "b3")
    taken += [line.take() for _ in range(len(line) + 1)]
    assert taken == ["a1", "b1", "c1", "a2", "b2", "a3", "b3", "a4", None]


def test_higher_classes_go_first_and_nobody_waits_for_ever() -> None:
    """By weight within a namespace, in the order of coming within a class; other namespaces are not pushed back."""
    line: Turnstile[str] = Turnstile()
    for number in range(40):
        for name in WEIGHTS:
            line.put("a", f"{name}-{number}", name)
    line.put("b", "low-b", "low")
    taken = [line.take() or "" for _ in range(27)]
    assert taken[0] == "high-0"
    assert taken[1] == "low-b"
    ours = [it.rpartition("-")[0] for it in taken if it != "low-b"]
    assert [ours.count(name) for name in WEIGHTS] == [16, 8, 2]
    assert ours[:13].count("low") == 1
    for name in WEIGHTS:
        of_class = [int(it.rpartition("-")[2]) for it in taken if it.startswith(name) and it != "low-b"]
        assert of_class == list(range(len(of_class)))
    rest = [line.take() for _ in range(len(line))]
    assert len(rest) == 121 - 27
    assert line.take() is None


@given(st.lists(st.tuples(st.sampled_from(["put", "take"]), st.sampled_from(sorted(WEIGHTS))), max_size=200))
@settings(max_examples=2_000 if SOAK else 60, deadline=None)
def test_whoever_waits_is_taken_within_a_bound(acts: list[tuple[str, str]]) -> None:
    """Between two that are taken of a class in which somebody waits, at most as many others go as weights say."""
    line: WeightedLine[tuple[str, int]] = WeightedLine()
    waiting = dict.fromkeys(WEIGHTS, 0)
    passed = dict.fromkeys(WEIGHTS, 0)
    for number, (act, name) in enumerate(acts):
        if act == "put":
            line.put((name, number), name)
            waiting[name] += 1
        elif len(line):
            first = line.first
            taken = line.take()
            assert taken == first
            waiting[taken[0]] -= 1
            for other in WEIGHTS:
                passed[other] = 0 if other == taken[0] or not waiting[other] else passed[other] + 1
                assert passed[other] <= 2 * sum(WEIGHTS.values()) // WEIGHTS[other] + len(WEIGHTS)
    assert len(line) == sum(waiting.values())


def _asleep(unit: Unit, code: str, namespace: str, many: int, priority: str = "normal") -> None:
    """Agents with a first message each."""
    now = time.time()
    about = {"code": {"digest": code}, "entrypoint": "zoo:Echo", "suspend_after_ms": 0, "priority": priority}
    spec = orjson.dumps(about).decode()
    resources, agents, messages = [], [], []
    for n in range(many):
        uid = f"agent_{namespace}-{'a' if priority == 'low' else 'z'}-{priority}-{n:03}"
        named: dict[str, Any] = {"uid": uid, "namespace": namespace, "name": f"e{n}-{priority}", "generation": 1}
        resource = named | {"kind": "Agent", "labels": "{}", "spec": spec, "revision": 1}
        resources.append(resource | {"created_at": now, "updated_at": now})
        agents.append(named | {"epoch": 0, "version": 0, "stopped": 0, "changed_at": now})
        body = {"specversion": "1.0", "id": f"m-{uid}", "source": "/test", "type": "steward.start"}
        text = orjson.dumps(body | {"time": "2026-01-01T00:00:00Z"}).decode()
        message = {"agent": uid, "message_id": f"m-{uid}", "trigger": "start", "body": text}
        messages.append(message | {"accepted_at": now, "attempts": 0})
    for table, rows in ((ResourceRow, resources), (AgentRow, agents), (InboxRow, messages)):
        for at in range(0, many, 100):
            unit.run(insert(table).values(rows[at : at + 100]))


@pytest.mark.anyio
async def test_few_are_not_behind_nearly_a_thousand(quick_url: str) -> None:
    """A thousand are woken together, of four namespaces: those of each are begun in turn, so the few, found last, wait
    for as many of the others as they are themselves.
    """
    async with running(quick_url, hosts=len(WOKEN)) as gate:
        code = await gate.code(SOURCE)
        await hosts(gate, len(WOKEN))
        for namespace in WOKEN:  # each has its host
            await gate.agent(f"first-{namespace}", code, "Echo", namespace=namespace, suspend_after_ms=60_000)
        await gate.until("SELECT 1 FROM turn", lambda rows: len(rows) == len(WOKEN))
        unit = Unit()
        for namespace, many in WOKEN.items():
            _asleep(unit, code, namespace, many)
        assert await gate.store.write(unit)
        over = "SELECT COUNT(*) FROM turn WHERE finished_at > 0 AND message_id LIKE 'm-%'"
        await gate.until(over, lambda rows: rows == [(sum(WOKEN.values()),)], 60)
        begun = (
            "SELECT a.namespace FROM turn t JOIN agent a ON a.uid = t.agent"
            " WHERE t.message_id LIKE 'm-%' ORDER BY t.started_at"
        )
        places: dict[str, list[int]] = {}
        for place, (namespace,) in enumerate(await gate.rows(begun)):
            places.setdefault(namespace, []).append(place)
        assert {namespace: len(it) for namespace, it in places.items()} == WOKEN
        for namespace, many in list(WOKEN.items())[
            1:
        ]:  # one of each in turn, but for those that are just being acquired
            assert places[namespace][-1] < len(WOKEN) * many + AT_ONCE, places[namespace]
        assert await gate.rows("SELECT 1 FROM inbox") == []


@pytest.mark.anyio
async def test_high_ones_are_served_before_low_ones(quick_url: str) -> None:
    """Of many that are woken together for a host with room for two: first by far, and none is left out."""
    async with running(quick_url, host_window=2, acquiring_max=2) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("first", code, "Echo", suspend_after_ms=60_000)
        await gate.until("SELECT 1 FROM turn", lambda rows: len(rows) == 1)
        unit = Unit()
        for priority in ("low", "high"):  # found in this order
            _asleep(unit, code, "default", 60, priority)
        assert await gate.store.write(unit)
        ended = "SELECT agent, finished_at FROM turn WHERE finished_at > 0 AND message_id LIKE 'm-%'"
        rows = await gate.until(ended, lambda found: len(found) == 120, 40)
        high = [at for agent, at in rows if "high" in agent]
        low = [at for agent, at in rows if "low" in agent]
        assert statistics.median(high) < statistics.median(low)
