"""On which nodes a function may run, as Ray is told."""

from ray_runtime.selecting import NODE_ID_LABEL
from ray_runtime.tasks import _options
from schemas.base import canonical
from schemas.compute import ComputeRun
from schemas.frames import TaskBegin


def options(avoid: list[str], **labels: str) -> dict[str, object]:
    given = ComputeRun.model_validate({"function": "jobs:add", "resources": {"labels": labels}})
    frame = TaskBegin("a:1", "default/thinker", "d", b"", canonical(given.model_dump(mode="json")), avoid)
    return _options(given, frame)


def test_a_function_is_kept_from_nodes_that_take_nobody() -> None:
    """Beside the labels that it asks for; who names one node by its id asks for no other."""
    assert "label_selector" not in options([])
    assert options(["a", "b"])["label_selector"] == {NODE_ID_LABEL: "!in(a,b)"}
    assert options(["a"], zone="b")["label_selector"] == {NODE_ID_LABEL: "!in(a)", "zone": "b"}
    assert options(["a"], **{NODE_ID_LABEL: "c"})["label_selector"] == {NODE_ID_LABEL: "c"}
