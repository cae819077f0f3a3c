"""Budgets: how much may be used, and what happens before it would be more."""

from controlplane.resources.kinds import of_kind
from schemas.budget import Budget, BudgetManifest

EXAMPLE = {
    "kind": "Budget",
    "metadata": {"namespace": "default", "name": "models", "labels": {}},
    "spec": {"window": "day", "limits": {"tokens_out": 1_000_000, "money": 20}, "action": "hold"},
}
OPERATIONS = of_kind("Budget", BudgetManifest, Budget, EXAMPLE)
