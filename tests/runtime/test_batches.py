"""What comes to an agent in a batch: all of it in one turn."""

from ray_runtime.sdk import Agent, Turn
from ray_runtime.testing import run_turn
from schemas.envelope import Envelope


class OneByOne(Agent):
    """Has no hook for batches."""

    state: dict[str, list[int]]

    async def on_message(self, turn: Turn, envelope: Envelope) -> None:
        self.state.setdefault("got", []).append(envelope.data)


class AtOnce(OneByOne):
    """Has one."""

    async def on_batch(self, turn: Turn, envelopes: list[Envelope]) -> None:
        self.state["sum"] = [sum(it.data for it in envelopes)]
        turn.send("x", len(envelopes))


def test_a_batch_comes_to_its_hook() -> None:
    """With the envelopes in their order; what it does stands in one journal, and replays."""
    tested = run_turn(AtOnce, [1, 2, 3], trigger="batch")
    assert (tested.problem, tested.state) == (None, {"sum": [6]})
    assert [it["data"] for it in tested.of("send")] == [3]


def test_an_agent_without_the_hook_gets_the_envelopes_one_by_one() -> None:
    """In one turn all the same."""
    assert run_turn(OneByOne, [1, 2, 3], trigger="batch").state == {"got": [1, 2, 3]}
