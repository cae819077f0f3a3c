"""One Python for all hosts: a turn may be replayed on any of them, and must come to the same.

It is recorded with the installation, so that turns of before are found where it has become another. Pure.
"""

from typing import Any

from controlplane.resources.problems import problem
from controlplane.store import upgrades as sql
from schemas.problem import Next, Problem
from schemas.processes import PYTHON
from schemas.wire import Hello


def other_python(said: Hello) -> Problem | None:
    """Why a host can not be taken, whose Python is another than the gate's; None when it is the same."""
    if said.python in ("", PYTHON):
        return None
    detail = (
        f"a host on node {said.node} runs Python {said.python}, and the gate {PYTHON}: all of a cluster runs one. "
        f"Start Ray on that node with Python {PYTHON}, or Steward with {said.python}"
    )
    look = Next(operation="nodes.list", why="shows the nodes")
    about: dict[str, Any] = {"host": said.host_id, "node": said.node, "python": said.python, "wanted": PYTHON}
    return problem("OTHER_PYTHON", detail, next=[look], **about)


def noted(before: str | None, now: float) -> list[Any]:
    """The rows that record the Python of a gate that starts now; where it is another, `before` and since when too."""
    if before == PYTHON:
        return []
    known = {"python": PYTHON}
    if before is not None:
        known |= {"python.before": before, "python.since": repr(now)}
    return [(sql.PYTHON_PUT, it, 1) for it in known.items()]
