"""Predict, commit, verify: proposals, plans, changes."""

from controlplane.resources.channels import EXAMPLE as CHANNEL
from controlplane.resources.operation import Operation
from schemas.calls import (
    ChangeInput,
    ChangeList,
    ChangeWaitInput,
    CommitInput,
    PageInput,
    PlanInput,
    ProposeInput,
)
from schemas.plan import Change, CommitResult, Plan

OPERATIONS = (
    Operation("resources.propose", "Propose resources, together",
              "Answers one plan for all manifests: ordered steps with their undo, exact claims, digests, read set. Changes nothing. The same input on an unmoved read set answers the same plan.",
              ProposeInput, Plan, "POST", "/v1/resources/propose", "read", "operator", "namespace",
              problems=("UNKNOWN_KIND", "DUPLICATE_MANIFEST", "OWNED", "INVALID_CODE", "CODE_NOT_FOUND", "SECRET_VALUE_MISSING", "QUOTA"),
              example={"manifests": [CHANNEL]}),
    Operation("plans.get", "Get a plan", "The plan as it was proposed.", PlanInput, Plan, "GET", "/v1/plans/{plan_id}",
              "read", "viewer", "record", problems=("NOT_FOUND",), example={"plan_id": "plan_1"}),
    Operation("plans.commit", "Commit a plan",
              "A compare-and-set on the plan's read set, single use. `committed`, `already_committed`, `stale` (what moved, and a new plan already proposed), `superseded` (others already made it so), `held`.",
              CommitInput, CommitResult, "POST", "/v1/plans/{plan_id}/commit", "destroy", "operator", "record",
              problems=("NOT_FOUND", "PLAN_EXPIRED"), example={"plan_id": "plan_1"}),
    Operation("changes.get", "Get a change", "Steps done, what it waits on, verdicts of its claims.", ChangeInput, Change,
              "GET", "/v1/changes/{change_id}", "read", "viewer", "record", problems=("NOT_FOUND",), example={"change_id": "chg_1"}),
    Operation("changes.list", "List changes", "Newest first.", PageInput, ChangeList, "GET", "/v1/changes",
              "read", "viewer", "namespace", problems=("INVALID_CURSOR",), example={"namespace": "default"}),
    Operation("changes.wait", "Wait until a change is done", "Answers the change; a timeout is no error, `done` is then false.",
              ChangeWaitInput, Change, "GET", "/v1/changes/{change_id}/wait", "read", "viewer", "record",
              problems=("NOT_FOUND",), example={"change_id": "chg_1", "timeout_s": 30}),
    Operation("changes.revert", "Propose to take a change back",
              "Answers a plan that restores only what the change wrote and nobody moved since.",
              ChangeInput, Plan, "POST", "/v1/changes/{change_id}/revert", "read", "operator", "record",
              problems=("NOT_FOUND", "STALE_REVERT", "NOT_REVERTIBLE"), example={"change_id": "chg_1"}),
)
