"""Sentinel: watches the readings, keeps what is usual in its state, and asks when something is not.

What stays high for two readings is unusual. It asks the diagnoser with `turn.request`, which does
not park: readings go on being handled while the diagnosis is made, and the answer comes to
`on_reply`. After asking it is silent for a while, so that one event makes one report. Asked by an
operator, it says what it holds for usual.
"""

from datetime import timedelta
from math import inf
from typing import Any, NamedTuple

from baseline import WARM_UP, Baseline
from pydantic import AwareDatetime, BaseModel, Field

from ray_runtime import Agent, Envelope, Turn

SUSTAINED = 2  # readings in a row
COOLDOWN_S = 15.0
MEBIBYTE = 1024.0 * 1024.0


class Measure(NamedTuple):
    """How far above the usual is worth a question whatever the spread, and from where on always."""

    floor: float
    ceiling: float = inf


MEASURES = {
    "cpu_percent": Measure(20.0, 90.0),
    "busiest_core_percent": Measure(45.0, 95.0),
    "tasks_running": Measure(6.0),  # tells too much from much, where use is at its top already
    "memory_percent": Measure(5.0, 95.0),
    "disk_percent": Measure(2.0, 95.0),
    "disk_bytes_per_s": Measure(50 * MEBIBYTE),
    "network_bytes_per_s": Measure(10 * MEBIBYTE),
}


class Finding(BaseModel):
    """One measure that is unusual."""

    measure: str
    value: float
    usual: float


class SentinelState(BaseModel):
    """What is usual, and when it last asked."""

    baselines: dict[str, Baseline] = Field(default_factory=dict)
    readings: int = 0
    questions: int = 0
    asked_at: AwareDatetime | None = None
    last_report: str | None = None


class Sentinel(Agent):
    """Decides what is unusual."""

    state: SentinelState

    async def on_message(self, turn: Turn, envelope: Envelope) -> dict[str, Any] | None:
        measures = measures_of(envelope.data)
        if not measures:
            return usual(self.state)
        findings = observe(self.state, measures)
        cooldown = timedelta(seconds=float(self.config.get("cooldown_s", COOLDOWN_S)))
        asked_at = self.state.asked_at
        if findings and (asked_at is None or turn.now() - asked_at >= cooldown):
            self.state.asked_at = turn.now()
            self.state.questions += 1
            question = {"findings": [finding.model_dump() for finding in findings], "reading": envelope.data}
            await turn.request(self.config.get("diagnoser", "diagnoser"), question, deadline_s=300)
        return None

    async def on_reply(self, turn: Turn, reply: Envelope) -> None:
        self.state.last_report = reply.data["text"] if isinstance(reply.data, dict) and "text" in reply.data else None


def measures_of(data: Any) -> dict[str, float]:
    """The measures of a reading; none when the data is no reading."""
    measures = data.get("measures") if isinstance(data, dict) else None
    return measures if isinstance(measures, dict) else {}


def observe(state: SentinelState, measures: dict[str, float]) -> list[Finding]:
    """Take a reading in; what has been unusual for long enough, the most striking first."""
    state.readings += 1
    findings = []
    for measure, known in MEASURES.items():
        if measure not in measures:
            continue
        baseline = state.baselines.setdefault(measure, Baseline())
        before = baseline.usual
        if baseline.observe(measures[measure], known.floor, known.ceiling) >= SUSTAINED:
            findings.append(Finding(measure=measure, value=round(measures[measure], 1), usual=round(before, 1)))
    return sorted(findings, key=lambda f: (f.value - f.usual) / MEASURES[f.measure].floor, reverse=True)


def usual(state: SentinelState) -> dict[str, Any]:
    """What is held for usual, for whoever asks."""
    return {
        "readings": state.readings,
        "learning": state.readings < WARM_UP,
        "usual": {name: round(baseline.usual, 1) for name, baseline in state.baselines.items()},
        "questions": state.questions,
        "last_report": state.last_report,
    }
