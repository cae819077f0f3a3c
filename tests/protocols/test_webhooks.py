"""Signed webhooks over a real port: what is taken, once, and what every other signature is told."""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from standardwebhooks import Webhook

from tests.api.plane import Plane, listening

pytestmark = pytest.mark.anyio
PAGE = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text()
KEY = b"a signing key of 24 byte"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
ENDPOINT = "http://127.0.0.1:1"
STRUCTURED = {"content-type": "application/cloudevents+json"}
SOURCE = "https://far.example/orders"
EVENT = {"specversion": "1.0", "id": "e1", "source": SOURCE, "type": "order.made", "data": {"n": 1}}
WEBHOOK = {"webhook": {"channel": "orders"}}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def plane(anyio_backend: str, database_url: str) -> AsyncIterator[Plane]:
    """On both databases, with a channel, a secret and a connection that has a webhook."""
    async with listening(database_url) as found:
        yield await hooked(found)


@pytest.fixture
async def quick(anyio_backend: str, quick_url: str) -> AsyncIterator[Plane]:
    async with listening(quick_url) as found:
        yield await hooked(found)


def manifests(**limits: Any) -> list[dict[str, Any]]:
    spec = {"protocol": "http", "endpoint": ENDPOINT, "secret": {"name": "s", "key": "k"}, "limits": limits}
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    return [
        {"kind": "Channel", "metadata": {"name": "orders"}, "spec": {"dataschema": schema}},
        {"kind": "Secret", "metadata": {"name": "s"}, "spec": {"values": {"k": SECRET}}},
        {
            "kind": "Connection",
            "metadata": {"name": "far"},
            "spec": {**spec, "options": WEBHOOK},
        },
    ]


async def apply(plane: Plane, *given: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=20) as client:
        plan = (await client.post("/v1/resources/propose", json={"manifests": given})).json()
        change = (await client.post(f"/v1/plans/{plan['plan_id']}/commit", json={})).json()
        done = (await client.get(f"/v1/changes/{change['change_id']}/wait?timeout_s=20")).json()
        assert done.get("outcome") == "verified", (plan, change, done)


async def hooked(plane: Plane) -> Plane:
    await apply(plane, *manifests(calls_per_s_max=1000))
    return plane


def signed(body: bytes, id_: str = "w1", key: bytes = KEY, ago_s: float = 0, **headers: str) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(key).sign(id_, at, body.decode()),
        "content-type": "application/json",
        **headers,
    }


async def post(plane: Plane, body: bytes, headers: dict[str, str], path: str = "default/far") -> httpx.Response:
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.post(f"{plane.url}/hooks/{path}", content=body, headers=headers)


async def envelopes(plane: Plane) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=20) as client:
        return list((await client.get("/v1/channels/default/orders/read")).json()["envelopes"])


async def test_what_is_signed_comes_once(plane: Plane) -> None:
    """However often and by how many at once it is posted, under one id it is one envelope, from the connection."""
    body = orjson.dumps({"n": 7})
    answers = await asyncio.gather(*(post(plane, body, signed(body, traceparent=TRACE)) for _ in range(5)))
    assert {it.status_code for it in answers} == {200}
    assert sorted(it.json()["duplicate"] for it in answers) == [False, True, True, True, True]
    again = await post(plane, body, signed(body, ago_s=60))
    assert again.json() == {"message_id": answers[0].json()["message_id"], "duplicate": True}
    (found,) = await envelopes(plane)
    told = {it: found.get(it) for it in ("source", "subject", "type", "data", "taint", "traceparent", "onbehalfof")}
    assert told == {
        "source": "/default/connections/far",
        "subject": "default/orders",
        "type": "steward.webhook",
        "data": {"n": 7},
        "taint": "untrusted",
        "traceparent": TRACE,
        "onbehalfof": None,
    }


async def test_cloudevents_in_both_modes_say_what_they_are(quick: Plane) -> None:
    """Type and key are taken; its own source and id are kept as its origin; what is ours it may not say."""
    whole = orjson.dumps({**EVENT, "partitionkey": "k1", "traceparent": TRACE})
    kind = "application/cloudevents+json; charset=utf-8"
    assert (await post(quick, whole, signed(whole, "w1") | {"content-type": kind})).status_code == 200
    body = orjson.dumps({"n": 2})
    attributes = {"ce-specversion": "1.0", "ce-id": "e2", "ce-source": "/far%20away", "ce-type": "steward.start"}
    assert (await post(quick, body, signed(body, "w2", **attributes))).status_code == 200
    first, second = await envelopes(quick)
    assert (first["type"], first["origin"], first["data"]) == ("order.made", "https://far.example/orders#e1", {"n": 1})
    assert (first["partitionkey"], first["traceparent"]) == ("k1", TRACE)
    assert (second["type"], second["origin"]) == ("steward.webhook", "/far away#e2")


BATCHED = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}


def batch(*numbers: int, **more: Any) -> bytes:
    return orjson.dumps([{**EVENT, "id": f"e{n}", "data": {"n": n}, **more} for n in numbers])


async def test_a_batch_comes_whole_each_event_once(plane: Plane) -> None:
    """By source and id, whatever the batch is called and whatever else stands in it; in its order; an empty one too."""
    first = await post(plane, batch(1, 2, 1), signed(batch(1, 2, 1), **BATCHED))
    assert first.status_code == 200, first.text
    told = first.json()
    assert (told["accepted"], told["duplicates"]) == (2, 1)
    assert [it["duplicate"] for it in told["messages"]] == [False, False, True]
    assert told["messages"][0]["message_id"] == told["messages"][2]["message_id"]
    answers = await asyncio.gather(
        *(post(plane, batch(2, 3, n), signed(batch(2, 3, n), f"w{n}", **BATCHED)) for n in (4, 5, 6))
    )
    assert {it.status_code for it in answers} == {200}, [it.text for it in answers]
    assert sum(it.json()["accepted"] for it in answers) == 4  # one of them brought 3, and each its own
    found = await envelopes(plane)
    assert sorted(it["data"]["n"] for it in found) == [1, 2, 3, 4, 5, 6]
    assert [it["data"]["n"] for it in found][:2] == [1, 2]
    assert {(it["type"], it["origin"].partition("#")[0]) for it in found} == {("order.made", SOURCE)}
    other = batch(1, source="https://other.example")
    assert (await post(plane, other, signed(other, "w9", **BATCHED))).json()["accepted"] == 1
    empty = await post(plane, b"[]", signed(b"[]", "w10", **BATCHED))
    assert empty.json() == {"messages": [], "accepted": 0, "duplicates": 0}


async def test_of_a_batch_all_is_taken_or_nothing(quick: Plane) -> None:
    """One event that is none, or that the channel does not take, or one too many: told where, and nothing is known."""
    good = {**EVENT, "id": "e1"}
    wrong: list[tuple[Any, int, str, str | None]] = [
        ([good, {**good, "id": ""}], 422, "INVALID_VALUE", "/1/id"),
        ([good, 7], 422, "INVALID_VALUE", "/1"),
        ([good, {**good, "id": "e2", "data_base64": "AA=="}], 422, "INVALID_VALUE", "/1/data_base64"),
        ([good, {**good, "id": "e2", "data": {"n": "x"}}], 422, "SCHEMA_MISMATCH", "/data/n"),
        ([{**good, "id": f"e{n}"} for n in range(101)], 422, "OUT_OF_RANGE", ""),
        (good, 422, "INVALID_VALUE", ""),
    ]
    for number, (events, status, reason, field) in enumerate(wrong):
        body = orjson.dumps(events)
        answered = await post(quick, body, signed(body, f"w{number}", **BATCHED))
        found = answered.json()
        assert (answered.status_code, found["reason"], found["field"]) == (status, reason, field), found
        if reason == "SCHEMA_MISMATCH":
            assert found["metadata"]["origin"] == f"{SOURCE}#e2"
    assert await envelopes(quick) == []
    taken = await post(quick, batch(1), signed(batch(1), "w0", **BATCHED))
    assert taken.json()["accepted"] == 1


async def test_no_other_signature_is_told_anything(quick: Plane) -> None:
    """Nor whether the connection, its namespace, its webhook or its secret is there; the operator hears of it."""
    plain = {"kind": "Connection", "metadata": {"name": "plain"}, "spec": {"protocol": "http", "endpoint": ENDPOINT}}
    weak = {"kind": "Secret", "metadata": {"name": "weak"}, "spec": {"values": {"k": "correct horse"}}}
    spec = {**manifests()[2]["spec"], "secret": {"name": "weak", "key": "k"}}
    await apply(quick, plain, weak, {"kind": "Connection", "metadata": {"name": "weakly"}, "spec": spec})
    body = b'{"n":1}'
    good = signed(body)
    cases = [
        (
            "default/far",
            signed(body, key=b"another key of 24 bytes!"),
        ),
        ("default/far", good | {"webhook-id": "w9"}),
        ("default/far", signed(body, ago_s=600)),
        ("default/far", signed(body, ago_s=-600)),
        ("default/far", good | {"webhook-signature": "v1"}),
        ("default/far", good | {"webhook-signature": "v1,%%%"}),
        ("default/far", good | {"webhook-timestamp": "nan"}),
        ("default/far", {"content-type": "application/json"}),
        ("default/far", signed(b'{"n":2}')),
        ("default/plain", good),
        ("default/weakly", signed(body, key=base64.b64decode("correct horse"))),
        ("default/nobody", good),
        ("elsewhere/far", good),
    ]
    told = set()
    for path, headers in cases:
        answered = await post(quick, body, headers, path)
        assert answered.status_code == 401, (path, headers)
        assert "www-authenticate" not in answered.headers
        found = answered.json()
        told.add(orjson.dumps({it: found[it] for it in found if it != "instance"}))
    assert len(told) == 1
    assert await envelopes(quick) == []
    async with httpx.AsyncClient(base_url=quick.url, headers=quick.headers(), timeout=20) as client:
        events = (await client.get("/v1/feedback?limit=200")).json()["events"]
    refused = [(it["subject"]["name"], it["data"]["reason"]) for it in events if it["type"] == "connection.refused"]
    assert sorted(refused) == [("far", "UNAUTHENTICATED"), ("weakly", "NOT_SET_UP")], "once a minute, not once a try"


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b'{"n":1,"n":2}', {}, 400, "MALFORMED_JSON"),
        (b"[" * 70 + b"]" * 70, {}, 400, "MALFORMED_JSON"),
        (b'{"n":"text"}', {}, 422, "SCHEMA_MISMATCH"),
        (b"n=1", {"content-type": "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"{}", {"content-type": "application/cloudevents-batch+json"}, 422, "INVALID_VALUE"),
        (b"[]", STRUCTURED, 422, "INVALID_VALUE"),
        (b'{"specversion":"0.3","id":"1","source":"s","type":"t"}', STRUCTURED, 422, "INVALID_VALUE"),
        (b'{"specversion":"1.0","id":7,"source":"s","type":"t"}', STRUCTURED, 422, "INVALID_VALUE"),
    ],
)  # fmt: skip
async def test_what_is_signed_and_can_not_be_kept_is_refused_and_not_known(
    quick: Plane, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    """Its id stays free: mended, it is taken."""
    answered = await post(quick, body, signed(body) | headers)
    assert (answered.status_code, answered.json()["reason"]) == (status, reason)
    mended = b'{"n":1}'
    assert (await post(quick, mended, signed(mended))).json()["duplicate"] is False


async def test_bounds_hold_for_what_comes_in(quick: Plane) -> None:
    """A body too large is refused before it is read, one too fast with a time; the rate is the connection's."""
    large = b'"' + 300_000 * b"x" + b'"'
    assert (await post(quick, large, signed(large))).json()["reason"] == "TOO_LARGE"
    await apply(quick, *manifests(calls_per_s_max=2)[1:])
    body, answers = b'{"n":1}', []
    for n in range(8):
        answers.append(await post(quick, body, signed(body, f"r{n}")))
    refused = [it for it in answers if it.status_code == 429]
    assert refused
    assert {it.json()["reason"] for it in refused} == {"QUOTA"}
    assert all(float(it.headers["retry-after"]) > 0 for it in refused)
    assert len(await envelopes(quick)) == len(answers) - len(refused)


async def test_each_event_of_a_batch_counts_for_the_rate(quick: Plane) -> None:
    """What a batch takes up, the next one waits for."""
    await apply(quick, *manifests(calls_per_s_max=1))
    first = await post(quick, batch(1, 2, 3, 4), signed(batch(1, 2, 3, 4), **BATCHED))
    assert first.json()["accepted"] == 4
    second = await post(quick, batch(5), signed(batch(5), "w2", **BATCHED))
    assert (second.status_code, second.json()["reason"]) == (429, "QUOTA")
    assert second.json()["retry_after_s"] > 1


async def test_no_token_opens_a_hook_and_other_methods_are_not_taken(quick: Plane) -> None:
    """A bearer token is not looked at, nor handed on; what is no name is refused as such."""
    async with httpx.AsyncClient(base_url=quick.url, headers=quick.headers(), timeout=20) as client:
        assert (await client.post("/hooks/default/far", json={"n": 1})).status_code == 401
        assert (await client.get("/hooks/default/far")).status_code == 405
        assert (await client.post("/hooks/default/Far!", json={})).json()["reason"] == "INVALID_NAME"
        assert (await client.post("/hooks/default", json={})).status_code == 404


async def test_what_came_in_is_forgotten_after_a_week(quick: Plane) -> None:
    """Not before, and whatever its connection has become."""
    from controlplane.store.retention import Retention

    body = b'{"n":1}'
    assert (await post(quick, body, signed(body))).status_code == 200
    retention = Retention(quick.store, 1e9, 1e9)
    await retention.sweep(time.time() + 604_000)
    assert (await post(quick, body, signed(body))).json()["duplicate"] is True
    await retention.sweep(time.time() + 605_000)
    assert (await post(quick, body, signed(body))).json()["duplicate"] is False, "nor does its channel know it"


async def test_the_documented_manifests_are_taken(quick: Plane) -> None:
    """What docs/http.md shows can be applied as it stands, and takes what is signed."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    secret = {"kind": "Secret", "metadata": {"name": "shop"}, "spec": {"values": {"token": "t"}}}
    await apply(quick, secret, *(it for block in blocks for it in yaml.safe_load_all(block)))
    body, key = b"{}", base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert (await post(quick, body, signed(body, key=key), "default/shop-in")).status_code == 200
