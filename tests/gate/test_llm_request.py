"""`llm.request` over real sockets: what goes out, what comes back, and what each kind of failure is."""

import asyncio
import json
from math import inf
from typing import Any

import jsonschema
import orjson
import pytest

from controlplane.effects.sending import Act, receipt_of, send
from controlplane.mesh.dataschema import data_fault
from controlplane.protocols.http import HttpEffector
from controlplane.protocols.llm import LlmEffector, without
from controlplane.protocols.llm_wire import retry_after_s
from schemas.connection import SPECS, connection_spec
from schemas.llm import LlmRequest
from schemas.ports import EffectCall, Link, Used
from schemas.problem import Refusal
from tests.gate.model import Endpoint, Reply, endpoint

pytestmark = pytest.mark.anyio
SECRET = "correct horse"
EFFECTOR = LlmEffector({"http.request": HttpEffector()}, data_fault)
GOOD = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def link_to(far: Endpoint, options: dict[str, Any] | None = None, **limits: Any) -> Link:
    given = {"allow_private": True} | (options or {})
    spec = {"protocol": "llm", "endpoint": far.url, "options": given, "limits": limits}
    return Link("model", connection_spec(spec), SECRET)


def request(text: str = "hello", **more: Any) -> LlmRequest:
    return LlmRequest.model_validate({"model": "m", "messages": [{"role": "user", "text": text}], **more})


async def asked(link: Link, given: LlmRequest) -> Used:
    answered = await EFFECTOR.execute(given, EffectCall("k", link))
    assert isinstance(answered, Used)
    return answered


async def refusal(link: Link) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await asked(link, request())
    return refused.value


async def test_a_conversation_goes_out_and_an_answer_comes_back_with_what_it_took() -> None:
    """Instructions, messages, results, tools and the secret are sent as the API wants them; usage is metered."""
    conversation = [
        {"role": "user", "text": "go"},
        {"role": "assistant", "text": "", "calls": [{"id": "c1", "tool": "get", "arguments": {"path": "a"}}]},
        {"role": "tool", "id": "c1", "tool": "get", "text": "found"},
    ]
    tools = [{"name": "get", "description": "gets", "effect": "http.request", "fixed": ["method"]}]
    async with endpoint(Reply("done", [("get", {"path": "b"}), ("get", "{no")], tokens=(12, 30))) as far:
        used = await asked(
            link_to(far), request(messages=conversation, instructions="be brief", tools=tools, output_tokens_max=50)
        )
        sent = far.bodies[0]
        assert far.asked[0].path == "/v1/chat/completions"
        assert far.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert used.meters == {"tokens_in": 12, "tokens_out": 30, "requests": 1}
    assert (used.result["text"], used.result["usage"]) == ("done", {"tokens_in": 12, "tokens_out": 30})
    good, bad = used.result["calls"]
    assert (good["tool"], good["arguments"], good["fault"]) == ("get", {"path": "b"}, "")
    assert "no JSON object" in bad["fault"]
    assert [it["role"] for it in sent["messages"]] == ["system", "user", "assistant", "tool"]
    assert [it.get("content") for it in sent["messages"]] == ["be brief", "go", None, "found"]
    declared = sent["tools"][0]["function"]
    assert (declared["name"], declared["description"]) == ("get", "gets")
    assert "path" in declared["parameters"]["properties"]
    assert "method" not in declared["parameters"]["properties"]
    assert 50 in (sent.get("max_completion_tokens"), sent.get("max_tokens"))


async def test_a_structured_answer_is_demanded_as_a_call() -> None:
    """With `output`, the model is offered `final_answer` and must call something; what does not meet it says why."""
    async with endpoint(Reply(calls=[("final_answer", {"n": 1}), ("final_answer", {"n": "1"})])) as far:
        used = await asked(link_to(far), request(output=GOOD))
        good, bad = used.result["calls"]
        assert (good["arguments"], good["fault"]) == ({"n": 1}, "")
        assert bad["fault"] == "$.n: '1' is not of type 'integer'"
        assert far.bodies[0]["tools"][0]["function"]["name"] == "final_answer"
        assert far.bodies[0]["tool_choice"] == "required"


async def test_only_what_took_nothing_is_asked_again() -> None:
    """429, 503 and 529 are waited for as long as they say; anything else has failed, and is asked once."""
    busy = Reply(status=429, headers={"Retry-After": "0"}, body=b'{"error":{"message":"slow down"}}')
    async with endpoint(busy, Reply(status=503, body=b"later"), Reply("at last")) as far:
        assert (await asked(link_to(far), request())).result["text"] == "at last"
        assert len(far.asked) == 3
        far.asked.clear()
        far.script = [Reply(status=429, headers={"Retry-After": "3600"}, body=b"come back")]
        problem = (await refusal(link_to(far))).problem
        assert (problem.retry_after_s, problem.metadata["http_status"]) == (3600, 429)
        assert len(far.asked) == 1, "an hour is longer than anybody waits here"
        for reply, told in [
            (Reply(status=500, body=b"oops"), "500"),
            (Reply(status=401, body=b"who?"), "401"),
            (Reply(status=302, headers={"Location": "http://127.0.0.1/"}, body=b"there"), "302"),
            (Reply(body=b"{not json"), "no answer of the API"),
            (Reply(body=b'{"choices":[]}'), "no answer of the API"),
            (Reply(body=b"x" * 2000), "more than 1000 bytes"),
        ]:
            far.asked.clear()
            far.script = [reply]
            found = (await refusal(link_to(far, response_bytes_max=1000))).problem
            assert (found.reason, len(far.asked)) == ("EFFECT_FAILED", 1), reply
            assert told in found.detail


@pytest.mark.parametrize(
    ("reply", "told"), [(Reply("half", cut=True), "cut off"), (Reply(hang=True), "did not answer within")]
)
async def test_what_breaks_off_has_failed_and_is_not_asked_again(reply: Reply, told: str) -> None:
    """Asking a model changes nothing, so no operator is asked; and what may have cost is not repeated.

    Only after a crash of the gate, when nobody knows of it, is it asked once more (`repeats_for_s`).
    """
    assert EFFECTOR.reads_only
    assert EFFECTOR.repeats_for_s(request(), None) == inf
    async with endpoint(reply) as far:
        link = link_to(far, timeout_s=0.3 if reply.hang else 20)
        act = Act(EFFECTOR, request(), link, EffectCall("k", link))
        task = asyncio.create_task(send(act, lambda: None, lambda _: None))
        await asyncio.wait([task])
        outcome, text = receipt_of(task, act)
        assert (outcome, len(far.asked)) == ("failed", 1)
        assert told in orjson.loads(text)["detail"]


@pytest.mark.parametrize(
    ("api", "said"),
    [
        ("openai", {"prompt_tokens": 12, "completion_tokens": 30}),
        ("anthropic", {"input_tokens": 12, "output_tokens": 30}),
    ],
)
async def test_an_answer_that_can_not_be_read_has_cost_what_it_says(api: str, said: dict[str, int]) -> None:
    """It has failed, and is counted like any other."""
    async with endpoint(Reply(body=orjson.dumps({"choices": "none", "content": 1, "usage": said}))) as far:
        link = link_to(far, {"api": api})
        act = Act(EFFECTOR, request(), link, EffectCall("k", link))
        task = asyncio.create_task(send(act, lambda: None, lambda _: None))
        await asyncio.wait([task])
        assert receipt_of(task, act)[0] == "failed"
        assert act.used == {"tokens_in": 12, "tokens_out": 30, "requests": 1}


def anthropic(content: list[dict[str, Any]], stop: str = "end_turn", **more: Any) -> Reply:
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": stop, "content": content,
        "usage": {"input_tokens": 3, "output_tokens": 4}, **more,
    }  # fmt: skip
    return Reply(body=json.dumps(body).encode())


def calling(given: Any) -> Reply:
    return anthropic([{"type": "tool_use", "id": "c1", "name": "get", "input": given}], "tool_use")


def nested(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    ("api", "reply", "fault"),
    [
        ("openai", Reply(calls=[("get", {"n": 10**30})]), "64-bit range: {"),
        ("openai", Reply(calls=[("get", {"n": "\ud83d"})]), "no JSON object: {"),
        ("openai", Reply(calls=[("get", "[1]")]), "no JSON object: [1]"),
        ("openai", Reply(calls=[("get", '{"n": "\ud83d"')]), "no JSON object: {"),
        ("openai", Reply(calls=[("get", "x" * 495 + SECRET)]), "no JSON object: " + "x" * 495 + "[secr"),
        ("anthropic", calling({"n": 10**30}), "64-bit range"),
        ("anthropic", calling({"n": "\ud83d"}), "surrogates not allowed"),
        ("anthropic", calling({"\ud83d": 1}), "surrogates not allowed"),
        ("anthropic", calling([1]), "no JSON object"),
        ("anthropic", calling(nested(300)), "Recursion limit reached"),
    ],
)
async def test_arguments_that_nobody_can_hold_are_a_fault_that_the_model_is_told(
    api: str, reply: Reply, fault: str
) -> None:
    """They fail the call and not the turn."""
    async with endpoint(reply) as far:
        link = link_to(far, {"api": api})
        act = Act(EFFECTOR, request(), link, EffectCall("k", link))
        answered = orjson.loads(await send(act, lambda: None, lambda _: None))
        (call,) = answered["calls"]
        assert (call["tool"], call["arguments"]) == ("get", {})
        assert fault in call["fault"]


@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_halves_of_characters_are_replaced(api: str) -> None:
    """In a text, which could not be kept otherwise; two that belong together are one."""
    text = "\ud83d\ude00 or \ud83d"
    async with endpoint(Reply(text) if api == "openai" else anthropic([{"type": "text", "text": text}])) as far:
        assert (await asked(link_to(far, {"api": api}), request())).result["text"] == "😀 or \ufffd"


@pytest.mark.parametrize(
    ("api", "reply", "why"),
    [
        ("openai", Reply(refusal="I will not \ud83d"), "the model refused: I will not \ufffd"),
        ("openai", Reply("half", finish="content_filter"), "its answer was broken off: content_filter"),
        ("openai", Reply("half", finish="error"), "its answer was broken off: error"),
        ("openai", Reply(refusal="x" * 495 + SECRET), "x" * 495 + "[secr"),
        ("anthropic", anthropic([{"type": "text", "text": "half"}], "refusal"), "broken off: content_filter"),
        (
            "anthropic",
            anthropic([], "refusal", stop_details={"type": "refusal", "category": "bio", "explanation": "no way"}),
            "the model refused: no way",
        ),
    ],
)
async def test_what_a_provider_withholds_has_failed(api: str, reply: Reply, why: str) -> None:
    """Half an answer or none is never told as one; it has cost what it says, and is not asked again."""
    async with endpoint(reply) as far:
        link = link_to(far, {"api": api})
        act = Act(EFFECTOR, request(), link, EffectCall("k", link))
        task = asyncio.create_task(send(act, lambda: None, lambda _: None))
        await asyncio.wait([task])
        outcome, text = receipt_of(task, act)
        assert (outcome, len(far.asked), act.used["requests"]) == ("failed", 1, 1)
        problem = orjson.loads(text)
        assert problem["reason"] == "EFFECT_FAILED"
        assert problem["detail"].endswith(why)


@pytest.mark.parametrize("status", [500, 503])
async def test_what_an_endpoint_says_is_cut_when_the_secret_is_gone(status: int) -> None:
    """One across the cut would be found no more."""
    said = b"x" * 495 + SECRET.encode()
    async with endpoint() as far:
        far.otherwise = Reply(status=status, body=said, headers={"Retry-After": "3600"})
        problem = (await refusal(link_to(far))).problem
        assert problem.metadata["said"] == "x" * 495 + "[secr"
        assert "corr" not in problem.detail


async def test_an_inner_address_is_refused_and_nobody_there_is_unreached() -> None:
    """A model's endpoint is checked like any other."""
    async with endpoint() as far:
        assert (await refusal(link_to(far, {"allow_private": False}))).problem.reason == "FORBIDDEN_ADDRESS"
        assert far.asked == []
        with pytest.raises(Exception, match="could not reach model"):
            await asked(link_to(Endpoint(port=1)), request())


async def test_the_other_api() -> None:
    """Anthropic's messages: its path, its header for the secret, its form of an answer."""
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 3, "output_tokens": 4},
    }  # fmt: skip
    async with endpoint(Reply(body=orjson.dumps(body))) as far:
        used = await asked(link_to(far, {"api": "anthropic"}), request(instructions="be brief"))
        assert (used.result["text"], used.meters["tokens_out"]) == ("hi", 4)
        assert far.asked[0].path.endswith("/v1/messages")
        assert far.asked[0].headers["x-api-key"] == SECRET
        assert "authorization" not in far.asked[0].headers


async def test_a_tool_of_no_effect_is_refused() -> None:
    """What is unknown can not be offered; nothing is sent."""
    async with endpoint() as far:
        with pytest.raises(Refusal, match="there is no effect"):
            await asked(link_to(far), request(tools=[{"name": "t", "effect": "no.such"}]))
        assert far.asked == []


def test_small_parts() -> None:
    """Retry-After in seconds, as a date, or as nothing; a schema without what is fixed."""
    assert retry_after_s("7", 0) == 7
    assert retry_after_s("Thu, 01 Jan 1970 00:00:30 GMT", 10) == 20
    assert retry_after_s("soon", 0) == retry_after_s("-3", 0) == 0
    assert without(GOOD, ["n"]) == {"type": "object", "properties": {}, "required": []}


@pytest.mark.parametrize(
    ("protocol", "options"),
    [("llm", {"redirects_max": 1}), ("llm", {"repeats_safely": ["GET"]}), ("http", {"api": "anthropic"})],
)
def test_options_are_of_their_protocol(protocol: str, options: dict[str, Any]) -> None:
    """What a protocol knows nothing of is refused, by the schema too."""
    given = {"protocol": protocol, "endpoint": "http://a/v1", "options": options}
    with pytest.raises(ValueError, match="Extra inputs"):
        SPECS.validate_python(given)
    assert not jsonschema.Draft202012Validator(SPECS.json_schema()).is_valid(given)
