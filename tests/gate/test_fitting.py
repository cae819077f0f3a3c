"""Whether a node could ever run what is asked for."""

from typing import Any

import pytest

from controlplane.effects.fitting import Fitting, fits, lacking
from controlplane.effects.keys import reserved_for
from schemas.compute import Needs

SMALL = {"node": "small", "alive": True, "resources": {"CPU": 2.0, "memory": 1e9}, "labels": {"zone": "a"}}
LARGE = {"node": "large", "alive": True, "resources": {"CPU": 64.0, "GPU": 2.0, "tpu": 1.0}, "labels": {}}
DEAD = {"node": "dead", "alive": False, "resources": {"CPU": 999.0}, "labels": {}}


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({}, True),
        ({"num_cpus": 0}, True),
        ({"num_cpus": 64, "num_gpus": 2, "custom": {"tpu": 1}}, True),
        ({"num_cpus": 65}, False),
        ({"num_gpus": 1, "memory_bytes": 10}, False),  # not on one node
        ({"labels": {"zone": "a"}}, True),
        ({"labels": {"zone": "a"}, "num_gpus": 1}, False),
        ({"labels": {"zone": "b"}}, False),
        ({"custom": {"quantum": 1}}, False),
    ],
)
def test_it_fits_if_one_living_node_has_all_of_it(needs: dict[str, Any], expected: bool) -> None:
    """Whatever runs there now; what lacks is said with what there is."""
    asked, nodes = Needs.model_validate(needs), [SMALL, LARGE, DEAD]
    assert fits(asked, nodes) is expected
    assert "large: CPU 64, GPU 2, tpu 1" in lacking(asked, nodes)
    assert "dead" not in lacking(asked, nodes)


def test_what_ray_takes_of_nobody_is_not_asked_for() -> None:
    """It was declared before that was refused; the agent waits, and hears what is to be mended."""
    nodes = [SMALL, LARGE]
    fitting = Fitting(lambda: nodes, lambda: set())

    def lacks(**resources: Any) -> str:
        return fitting.lacks(reserved_for("uid_1", "default", "x", {"isolation": "dedicated", "resources": resources}))

    assert lacks(num_gpus=2) == ""
    assert lacks(num_gpus=1.5).startswith("it does not take resources: num_gpus: 1.5 is no whole number")
    assert lacks(custom={"CPU": 1}).startswith("it does not take resources: custom/CPU: CPU is a name of Ray's own")


def test_what_is_drained_has_nothing_to_give() -> None:
    """Its name is told, with why it does not count."""
    needs = Needs.model_validate({"num_gpus": 1})
    assert not fits(needs, [SMALL, LARGE], {"large"})
    assert "large: drained" in lacking(needs, [SMALL, LARGE], {"large"})
    assert fits(Needs(), [SMALL, LARGE], {"large"})
    assert not fits(Needs(), [SMALL, LARGE], {"large", "small"})
