"""Answers as a plane gives them, checked against the vocabulary: a stand-in can't say what a plane could not."""

from typing import Any

from controlplane.resources.catalogue import OPERATIONS

AT = "2026-11-23T10:00:00Z"
ECHO = {"kind": "Agent", "namespace": "default", "name": "echo"}
_PROBE = {"operation": "agents.get", "arguments": {"namespace": "default", "name": "echo"}}


def said(operation: str, value: dict[str, Any]) -> dict[str, Any]:
    """The value as the operation's output model serializes it."""
    return OPERATIONS[operation].output.model_validate(value).model_dump(mode="json")


def plan(plan_id: str = "plan_1", *, steps: int = 1, action: str = "create") -> dict[str, Any]:
    step = {"action": action, "target": ECHO, "changes": [{"path": "/spec"}], "undo": "exact", "probe": _PROBE}
    claim = {
        "claim_id": "c0", "subject": ECHO, "measure": "condition.Ready", "expected": {"value": "true"},
        "fidelity": "exact", "basis": "computed", "verify_within_s": 30, "probe": _PROBE,
    }  # fmt: skip
    return said(
        "resources.propose",
        {
            "plan_id": plan_id, "principal": "admin", "namespace": "default", "as_of": AT, "expires_at": AT,
            "digest": "sha256:0", "claims_digest": "sha256:1", "read_set": [],
            "steps": [{"index": index, **step} for index in range(steps)], "claims": [claim] if steps else [],
        },
    )  # fmt: skip


def committed(outcome: str = "committed") -> dict[str, Any]:
    change = "chg_1" if outcome in ("committed", "already_committed") else None
    moved = {"kind": "Agent", "namespace": "default", "name": "echo", "planned_generation": 1, "current_generation": 2}
    stale = {"new_plan_id": "plan_2", "moved": [moved]} if outcome == "stale" else {}
    return said("plans.commit", {"outcome": outcome, "plan_id": "plan_1", "change_id": change, **stale})


def change(outcome: str = "verified", *, done: bool = True) -> dict[str, Any]:
    verdict = {"verified": "held", "missed": "missed"}.get(outcome)
    return said(
        "changes.wait",
        {
            "change_id": "chg_1", "plan_id": "plan_1", "outcome": outcome, "done": done, "principal": "admin",
            "committed_at": AT, "steps": [{"index": 0, "done": done}],
            "claims": [{"claim_id": "c0", "verdict": verdict, "observed": "true" if done else None}],
        },
    )  # fmt: skip


def agent(name: str = "echo", *, ready: str = "true", labels: dict[str, str] | None = None) -> dict[str, Any]:
    return said(
        "agents.get",
        {
            "metadata": {
                "namespace": "default", "name": name, "labels": labels or {}, "revision": 1, "generation": 1,
                "uid": f"uid-{name}", "created_at": AT,
            },
            "spec": {"code": {"files": {"echo.py": "a\nb\n"}}, "entrypoint": "echo:Echo"},
            "status": {
                "conditions": [
                    {"type": "Ready", "status": ready, "reason": "Started" if ready == "true" else "HANDLER_ERROR"},
                    {"type": "Active", "status": "false", "reason": "Suspended"},
                    {"type": "Parked", "status": "false", "reason": "NotParked"},
                    {"type": "Stopped", "status": "false", "reason": "NotStopped"},
                ],
                "epoch": 1, "host": None, "turns": 7, "inbox": 0,
            },
        },
    )  # fmt: skip


def event(cursor: str, what: str = "resource.created") -> dict[str, Any]:
    found = {"cursor": cursor, "id": f"evt_{cursor}", "type": what, "time": AT, "subject": ECHO, "principal": "admin"}
    return dict(said("feedback.read", {"events": [found], "cursor": cursor})["events"][0])


def status() -> dict[str, Any]:
    return said(
        "system.status",
        {
            "installation": "i", "version": "0.1.0", "ready": True, "database": "sqlite", "gate": "up", "ray": "up",
            "ray_dashboard": None, "confinement": "possible", "hosts": 1, "agents": {"total": 1}, "open_changes": 0,
            "dead_letters": 0, "processes": [{"name": "gate", "pid": 5, "alive": True}], "problems": [], "as_of": AT,
        },
    )  # fmt: skip
