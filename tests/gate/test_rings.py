"""Rings of questions among agents that ask several at once, on graphs and without a gate."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.effects.rings import Waits, ring_through, rings

EDGES = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=14)


def questions(edges: list[tuple[str, str]]) -> list[Waits]:
    return [Waits(one, other, f"await_{n}", float(n), "default", one) for n, (one, other) in enumerate(edges)]


def acyclic(found: list[Waits]) -> bool:
    """By taking away whoever waits for nobody, until nobody is left."""
    left = list(found)
    while left:
        waiting = {it.agent for it in left}
        fewer = [it for it in left if it.target in waiting]
        if len(fewer) == len(left):
            return False
        left = fewer
    return True


@given(EDGES)
def test_every_ring_is_broken_and_nothing_else(edges: list[tuple[str, str]]) -> None:
    """Without the questions that fail nobody waits in a ring; where there was no ring, none fails."""
    found = questions(edges)
    broken = [newest for newest, _ in rings(found)]
    assert len({it.await_id for it in broken}) == len(broken)
    assert acyclic([it for it in found if it not in broken])
    if acyclic(found):
        assert broken == []


@given(EDGES)
def test_a_ring_is_found_by_whoever_closes_it(edges: list[tuple[str, str]]) -> None:
    """The last question closes a ring exactly if its target already waited, over others, for who asks."""
    if not edges:
        return
    *before, (start, target) = edges
    found = ring_through(start, target, lambda at: [other for one, other in before if one == at])
    reached = {target}
    while more := {other for one, other in before if one in reached} - reached:
        reached |= more
    assert found == (start in reached)


def test_the_newest_question_of_a_ring_fails() -> None:
    """And says how many agents the ring has."""
    found = questions([("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])
    assert [(it.await_id, agents) for it, agents in rings(found)] == [("await_2", 3)]


def gathered(agent: str, targets: str, lacks: int, since: float = 0.0) -> list[Waits]:
    """Questions of one gathering."""
    return [Waits(agent, it, f"gather_{agent}.{n}", since + n, "default", agent, lacks) for n, it in enumerate(targets)]


def broken(*found: list[Waits]) -> list[str]:
    return [it.await_id for it, _ in rings(it for of_one in found for it in of_one)]


def test_who_waits_for_the_first_is_not_stuck_while_another_can_answer() -> None:
    """Somebody who is free answers, or will have failed; who needs all is stuck by one."""
    back = questions([("b", "a")])
    assert broken(gathered("a", "bc", 1), back) == []
    assert broken(gathered("a", "bcd", 2), back) == []
    assert broken(gathered("a", "bc", 2), back) == ["gather_a.0"]


def test_a_quorum_that_can_not_be_met_any_more_is_a_ring() -> None:
    """So many fail as it takes, and no more; also where an agent is stuck in one of two waits alone."""
    back = questions([("b", "a"), ("c", "a")])
    assert broken(gathered("a", "bc", 1, since=-9), back) == ["await_0"], "b answers, which is enough"
    assert broken(gathered("a", "bc", 1, since=9), back) == ["gather_a.0", "gather_a.1"], "nobody is left to answer"
    assert broken(gathered("a", "bc", 3, since=9), questions([("b", "a")])) == ["gather_a.0"], "others have failed"
    beside = [Waits("a", "d", "await_9", 9.0, "default", "a")]
    assert broken(gathered("a", "bc", 1), questions([("d", "a")]), beside) == ["await_9"]


@given(EDGES, st.integers(1, 3))
def test_when_these_fail_nobody_is_stuck(edges: list[tuple[str, str]], lacks: int) -> None:
    """Whatever is gathered, one look is enough."""
    asked: dict[str, str] = {}
    for one, other in edges:
        asked[one] = asked.get(one, "") + other
    found = [it for one, others in asked.items() for it in gathered(one, others, lacks)]
    gone = set(broken(found))
    assert broken([it for it in found if it.await_id not in gone]) == []
