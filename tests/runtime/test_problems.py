"""The Problems of hosts against the catalogue's, and the promises of the SDK."""

import ray_runtime
from controlplane.resources.problems import REASONS as CATALOGUE
from ray_runtime import problems
from ray_runtime.sdk import HOOKS, Agent, Turn

TURN = {
    "send", "publish", "join", "leave", "request", "ask", "ask_all", "ask_human", "gather", "sleep", "conclude",
    "continue_as", "timer", "cancel_timer", "spawn", "perform", "compute", "find", "now", "random", "rng", "uuid",
    "workspace", "turn_id",
}  # fmt: skip


def test_hosts_speak_of_problems_as_the_catalogue_does() -> None:
    """Title, status and way out are the same; hosts can not import them."""
    for reason, known in problems.REASONS.items():
        assert tuple(CATALOGUE[reason]) == tuple(known), reason


def test_the_sdk_has_what_works_and_nothing_else() -> None:
    """Methods of later versions are absent, not stubs."""
    public = {name for name in [*vars(Turn), "turn_id"] if not name.startswith("_")}
    assert public == TURN
    assert {name for name in vars(Agent) if name.startswith("on_")} == set(HOOKS)
    assert set(ray_runtime.__all__) == {"Agent", "Envelope", "Refusal", "Turn", "downgrade", "migration"}
