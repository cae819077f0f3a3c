"""What a gate knows of effects beyond their records has a bound, however many there are."""

from types import SimpleNamespace
from typing import Any

from controlplane.economy.accounts import Excess
from controlplane.effects.execution import Execution
from controlplane.effects.known import KNOWN_MAX
from controlplane.effects.sending import Act
from schemas.effect import Verdict
from schemas.wire import Ask


def test_what_budgets_hold_back_is_known_within_a_bound() -> None:
    """Effects that a budget holds back are never sent, and so nothing else would forget them."""
    excess = Excess("default", "one", "hold", "effects", "1", "1", "0", "1", None)
    held: list[str] = []
    node: Any = SimpleNamespace(
        effectors={},
        budgeting=SimpleNamespace(lacks=lambda *_: excess),
        holding=SimpleNamespace(hold_back=lambda slot, turn, frame, *_: held.append(frame.turn_id)),
    )
    execution, turn = Execution(node), SimpleNamespace(raises=False)
    verdict = Verdict(outcome="allow", rules=[])
    act: Any = Act.__new__(Act)
    for n in range(KNOWN_MAX + 3):
        frame = Ask(f"turn_{n}", 1, "0", 0, "notes.once", "", b"{}", "", [])
        execution._judged(None, turn, frame, verdict, act)  # type: ignore[arg-type]
    assert len(held) == KNOWN_MAX + 3
    known = [it for it in held if execution.ended((it, "0", 0))]
    assert (len(known), known[-1]) == (3, f"turn_{KNOWN_MAX + 2}")
