"""A deploy through a whole installation, in the middle of a parked turn, and one that stops itself."""

from typing import Any

from tests.conftest import SOAK
from tests.end_to_end.test_living import ask, until
from tests.gate.deals import BROKEN, NEWER, OLD
from tests.stack import Stack


def deals(source: str) -> dict[str, Any]:
    spec = {
        "code": {"files": {"deal.py": source}},
        "entrypoint": "deal:Deal",
        "suspend_after_ms": 100,
        "upgrade": {"parked": "prove"},
    }
    return {
        "kind": "Fleet",
        "metadata": {"name": "deals"},
        "spec": {"replicas": 2, "upgrade": {"batch": 1}, "template": {"labels": {}, "spec": spec}},
    }


def upgraded(stack: Stack) -> int:
    return int(stack.call("fleets.get", name="deals")["status"]["upgraded_replicas"])


def test_a_deploy_in_the_middle_of_a_parked_turn(stack: Stack) -> None:
    """One after the other; the turn is proved, and goes on under the newer code, on a state of its version."""
    assert stack.apply(deals(OLD))["outcome"] == "verified"
    stack.call("agents.send", name="deals-1", data=5)
    (question,) = until(lambda: stack.call("questions.list", agent="deals-1")["items"])
    if SOAK:
        stops_itself(stack)
    assert stack.apply(deals(NEWER))["outcome"] == "verified"
    (turn,) = (it for it in stack.call("turns.list", name="deals-1")["items"] if it["outcome"] == "parked")
    assert turn["upgrade"]["decided"] == "proved"
    stack.call("questions.answer", question_id=question["question_id"], answer="yes")
    until(lambda: stack.call("turns.get", turn_id=turn["turn_id"])["outcome"] == "committed")
    assert ask(stack, "deals-1", "hello") == ["new", {"cents": 5}]
    assert ask(stack, "deals-0", "hello") == ["new", {"cents": 0}]
    stack.call("plans.commit", plan_id=stack.call("fleets.delete", name="deals")["plan_id"])


def stops_itself(stack: Stack) -> None:
    """What breaks stops at the first agent, and is taken back."""
    plan = stack.call("fleets.propose", manifest=deals(BROKEN))
    broken = stack.call("plans.commit", plan_id=plan["plan_id"])

    def stopped() -> Any:
        (ready,) = stack.call("fleets.get", name="deals")["status"]["conditions"]
        return ready["reason"] == "UpgradeStopped" and ready["message"]

    assert "STATE_VERSION: @migration(1) of Deal raised ZeroDivisionError" in until(stopped)
    assert upgraded(stack) == 1
    back = stack.call("changes.revert", change_id=broken["change_id"])
    assert stack.call("plans.commit", plan_id=back["plan_id"])["outcome"] == "committed"
    until(lambda: upgraded(stack) == 2)
