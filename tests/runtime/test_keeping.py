"""What Ray refuses is refused before it is asked, by what Ray itself says of it."""

import itertools
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from ray._common.ray_option_utils import validate_actor_options, validate_task_options
from ray._common.utils import resources_from_ray_options

from schemas.compute import Asked, Needs
from schemas.isolation import Resources
from schemas.keeping import unfit

AMOUNTS = (0.00001, 0.0001, 0.12345, 0.5, 1, 1.00001, 1.5, 2, 3, 4)
NAMES = ("licence", "CPU", "GPU", "memory", "object_store_memory", "bundle", "TPU", "HPU", "neuron_cores", "RBLN")
LABELS = {"zone": "a", "ray.io/x": "b", "a.b-c/d_e": "x.y", "a-/x": "b", "a": "x"}
CASES: list[dict[str, Any]] = [
    *({name: it} for name, it in itertools.product(("num_cpus", "num_gpus"), (0, *AMOUNTS))),
    *({"custom": {name: it}} for name, it in itertools.product((*NAMES, "NPU", "FURIOSA", "MBLT", "TTNPU"), AMOUNTS)),
    *({"labels": {key: value}} for key, value in LABELS.items()),
]
AT_THE_CALL = {"num_gpus": 1, "NPU": 1}  # what Ray's options take, and its call does not: more than one, and no whole


def _ray_takes(given: dict[str, Any]) -> bool:
    options = {name: it for name, it in given.items() if name.startswith("num_")}
    options |= {"resources": given.get("custom", {}), "label_selector": given.get("labels", {})}
    try:
        for check in (validate_actor_options, validate_task_options):
            check(dict(options), in_options=True)
        resources_from_ray_options(options)
    except ValueError:
        return False
    amounts = given | given.get("custom", {})
    return not any(amounts.get(it, 0) > 1 and amounts[it] % 1 for it in AT_THE_CALL)


@pytest.mark.parametrize("given", CASES, ids=str)
def test_what_ray_refuses_is_refused_and_nothing_else(given: dict[str, Any]) -> None:
    """By the check, by the model of what comes in and by its schema; what is stored stays readable."""
    takes = _ray_takes(given)
    assert (unfit(Resources(**given)) is None, unfit(Needs(**given)) is None) == (takes, takes)
    for schema in (Resources.model_json_schema(), Asked.model_json_schema()):
        assert jsonschema.Draft202012Validator(schema).is_valid(given) is takes, schema
    assert Resources.model_json_schema(mode="serialization") == Resources.model_json_schema()
    if takes:
        Asked(**given)
    else:
        with pytest.raises(ValidationError):
            Asked(**given)


def test_a_key_of_a_label_is_looked_at_to_its_end() -> None:
    """Ray's own pattern would take hours for it."""
    key = "a." * 45 + "a-/x"
    found = unfit(Resources(labels={key: "b"}))
    assert found is not None
    assert found[0] == "labels"
    assert (unfit(Needs(labels={"a/b": "x/y"})) or ("",))[0] == "labels/a~1b"
