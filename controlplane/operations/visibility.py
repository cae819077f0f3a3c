"""What a principal sees of plans and changes, which are named by ids.

A plan may span namespaces; who does not reach all of them is answered as if there were no such id,
in the very same words (law 15).
"""

from controlplane.resources.problems import refuse
from schemas.principal import Principal
from schemas.problem import Next, Refusal


def sees(principal: Principal, namespaces: str) -> bool:
    """Whether the principal reaches every namespace of a plan or change."""
    return all(principal.reaches(it) for it in namespaces.split(","))


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
