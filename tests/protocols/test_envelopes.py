"""CloudEvents over HTTP, both ways and in both modes; trace contexts."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from controlplane.mesh.strict import parse_json_now
from controlplane.mesh.tracing import new_trace
from controlplane.protocols.envelopes import from_http, to_http, trace_of
from tests.conftest import SOAK

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=50)
DATA = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT, st.lists, max_leaves=5)
EVENT = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": TEXT, "source": TEXT, "type": TEXT, "data": DATA},
    optional={"partitionkey": TEXT, "traceparent": st.builds(new_trace), "subject": TEXT, "missed": st.integers(0, 9)},
)


@given(EVENT, st.sampled_from(["binary", "structured"]))
def test_what_goes_out_comes_in_again(event: dict[str, Any], mode: str) -> None:
    """Whatever its text; headers are what HTTP can carry; `steward.` types are nobody's but ours."""
    headers, body = to_http(event, mode)
    assert all(it.isascii() and it.isprintable() for it in headers.values())
    found = from_http({name.lower(): value for name, value in headers.items()}, body, parse_json_now)
    assert found.data == event["data"]
    assert found.type == (None if event["type"].startswith("steward.") else event["type"])
    assert found.origin == f"{event['source']}#{event['id']}"
    assert found.partitionkey == event.get("partitionkey")
    assert found.traceparent == event.get("traceparent")


@given(st.binary(max_size=200) if SOAK else st.binary(max_size=40))
def test_no_bytes_break_it(body: bytes) -> None:
    """What is no event is refused by its reason."""
    from schemas.problem import Refusal

    refused: list[int] = []
    for kind in ("application/json", "application/cloudevents+json", ""):
        try:
            from_http({"content-type": kind}, body, parse_json_now)
        except Refusal as refusal:
            refused.append(refusal.problem.status)
    assert set(refused) <= {400, 415, 422}


def test_a_trace_context_is_one_or_none() -> None:
    """Version 00, no zeros; anything else begins a new one where it comes in."""
    good = new_trace()
    assert trace_of(good) == good
    zero = f"00-{32 * '0'}-{16 * 'a'}-01"
    for bad in (None, "", zero, f"00-{32 * 'a'}-{16 * '0'}-01", good.upper(), f"01{good[2:]}", good + "-x", good[:-1]):
        assert trace_of(bad) is None
    assert from_http({"content-type": "application/json", "traceparent": "x"}, b"1", orjson.loads).traceparent is None
