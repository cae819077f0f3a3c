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
    assert bool(found) == (start in reached)


def test_the_newest_question_of_a_ring_fails() -> None:
    """And says how many agents the ring has."""
    found = questions([("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])
    assert [(it.await_id, agents) for it, agents in rings(found)] == [("await_2", 3)]
