"""What a principal sees of plans, changes and turns, which are named by ids.

A plan may span namespaces; who does not reach all of them is answered as if there were no such id,
in the very same words (law 15), and after the very same reading: whether a record may be seen is a
condition of the query that looks for it, so that a foreign one costs what an absent one costs.
"""

from typing import Any

from sqlalchemy import ColumnElement, func, literal

from controlplane.resources.problems import refuse
from schemas.principal import Principal
from schemas.problem import Next, Refusal


def within(principal: Principal, namespaces: Any) -> list[ColumnElement[bool]]:
    """The condition that a column of namespaces, joined by commas, holds none that the principal does not reach."""
    if "*" in principal.namespaces:
        return []
    left: ColumnElement[str] = literal(",").concat(namespaces).concat(",")
    for reached in principal.namespaces:
        left = func.replace(left, f",{reached},", ",")
    return [left == ","]


def absent_plan(plan_id: str) -> Refusal:
    """There is no such plan for this principal."""
    step = Next(operation="changes.list", why="shows the changes that were committed")
    return refuse(
        "NOT_FOUND", f"there is no plan {plan_id}", field="/plan_id", next=[step], kind="Plan", plan_id=plan_id
    )


def absent_change(change_id: str) -> Refusal:
    """There is no such change for this principal."""
    step = Next(operation="changes.list", why="shows the changes that were committed")
    return refuse(
        "NOT_FOUND",
        f"there is no change {change_id}",
        field="/change_id",
        next=[step],
        kind="Change",
        change_id=change_id,
    )
