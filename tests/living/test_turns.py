"""Turns are read from their records, newest first, by those who may see their agent."""

from typing import Any

import pytest

from controlplane.operations.living import dead_letters, paging, turns
from controlplane.store.store import Store
from schemas.dead_letters import DeadLetterListInput
from schemas.problem import Refusal
from schemas.records import TurnInput, TurnListInput
from tests.living import world

pytestmark = pytest.mark.anyio


async def test_pages_hold_every_turn_once_newest_first(store: Store) -> None:
    """Turns that started in the same moment are neither lost nor doubled between pages."""
    uid = await world.agent(store, "echo")
    made = [await world.turn(store, uid, number) for number in range(7)]
    seen: list[str] = []
    page = None
    while True:
        given = TurnListInput(name="echo", limit=2, page=page)
        answer = await turns.handlers(store)["turns.list"](world.call("turns.list"), given)
        seen += [item.turn_id for item in answer.items]
        page = answer.next_page
        if page is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize("page", ["x", "!", "W10", "WzEsMl0", "é", "a" * 500])
async def test_a_page_of_another_list_is_refused(quick_store: Store, page: str) -> None:
    """What is not a mark of this list is INVALID_CURSOR at /page."""
    await world.agent(quick_store, "echo")
    with pytest.raises(Refusal) as refused:
        await turns.handlers(quick_store)["turns.list"](world.call("turns.list"), TurnListInput(name="echo", page=page))
    assert (refused.value.problem.reason, refused.value.problem.field) == ("INVALID_CURSOR", "/page")


@pytest.mark.parametrize("key", [[2**63], [2**64 - 1], [1.5, "turn_\x00"]])
async def test_a_page_that_no_database_can_be_asked_for_is_refused(store: Store, key: list[Any]) -> None:
    """Integers beyond 64 bits and NULs are INVALID_CURSOR too, wherever such a key is taken."""
    await world.agent(store, "echo")
    page = paging.encode(key)
    listed = turns.handlers(store)["turns.list"]
    given: TurnListInput | DeadLetterListInput = TurnListInput(name="echo", page=page)
    if len(key) == 1:
        listed = dead_letters.handlers(store)["channels.dead_letters"]
        given = DeadLetterListInput(name="echo", page=page)
    with pytest.raises(Refusal) as refused:
        await listed(world.call("turns.list"), given)
    assert (refused.value.problem.reason, refused.value.problem.field) == ("INVALID_CURSOR", "/page")


async def test_a_turn_comes_with_its_journal_in_order(store: Store) -> None:
    """Message, problem, entries with verdict and result, in the order of their positions."""
    uid = await world.agent(store, "echo")
    turn_id = await world.turn(store, uid, 1, outcome="failed", problem='{"reason": "HANDLER_ERROR"}')
    verdict = '{"outcome": "allow", "rules": ["grant"]}'
    await world.entry(store, turn_id, 1, kind="effect", verdict=verdict, outcome="succeeded", result='{"cpu": 1}')
    await world.entry(store, turn_id, 0, body='{"to": "default/x"}')
    view = await turns.handlers(store)["turns.get"](world.call("turns.get"), TurnInput(turn_id=turn_id))
    assert [(e.position, e.kind) for e in view.journal] == [(0, "send"), (1, "effect")]
    assert view.journal[1].result == {"cpu": 1}
    assert view.journal[1].verdict == {"outcome": "allow", "rules": ["grant"]}
    assert view.message == {"id": "msg_1", "data": 1}
    assert view.problem == {"reason": "HANDLER_ERROR"}
    assert view.cpu_s == pytest.approx(0.0015)


async def test_a_foreign_turn_is_answered_like_an_absent_one(quick_store: Store) -> None:
    """Whoever does not reach the namespace can not tell the two apart."""
    uid = await world.agent(quick_store, "echo")
    turn_id = await world.turn(quick_store, uid, 1)
    get = turns.handlers(quick_store)["turns.get"]
    problems = []
    for wanted in (turn_id, "turn_999"):
        with pytest.raises(Refusal) as refused:
            await get(world.call("turns.get", world.ELSEWHERE), TurnInput(turn_id=wanted))
        problems.append(refused.value.problem.model_dump_json().replace(wanted, "…"))
    assert problems[0] == problems[1]


async def test_turns_of_no_agent_are_not_found(quick_store: Store) -> None:
    """An agent that is not there has no list."""
    with pytest.raises(Refusal) as refused:
        await turns.handlers(quick_store)["turns.list"](world.call("turns.list"), TurnListInput(name="nobody"))
    assert refused.value.problem.reason == "NOT_FOUND"
    assert refused.value.problem.next[0].operation == "agents.list"
