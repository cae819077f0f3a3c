"""Answers of a model that are told while they come: each part once, the journaled answer whole, a break a failure."""

import asyncio
import itertools
from typing import Any

import orjson
import pytest

from controlplane.effects.sending import Act, receipt_of, send
from schemas.ports import EffectCall, Used
from tests.gate.model import Reply, endpoint
from tests.gate.running import RunningGate, true
from tests.gate.test_llm_agent import respecified, scene, spec
from tests.gate.test_llm_request import EFFECTOR, link_to, request

pytestmark = pytest.mark.anyio
BUSY = Reply(status=429, headers={"Retry-After": "0"}, body=b"{}")


async def test_text_is_told_while_it_comes_and_the_answer_is_whole() -> None:
    """What took nothing is asked again as ever; the far side's first part is heard before it says the next."""
    told: list[str] = []
    slow = Reply(parts=["It ", "is ", "hot."], after_first=asyncio.Event(), tokens=(7, 3))
    async with endpoint(BUSY, slow) as far:
        call = EffectCall("k", link_to(far), told.append)
        asked = asyncio.create_task(EFFECTOR.execute(request(stream="parts"), call))
        await true(lambda: told)
        assert "".join(told) == "It "
        assert slow.after_first is not None
        slow.after_first.set()
        used = await asked
        assert isinstance(used, Used)
        assert (used.result["text"], "".join(told), used.result["finish"]) == ("It is hot.", "It is hot.", "stop")
        assert used.meters == {"tokens_in": 7, "tokens_out": 3, "requests": 1}
        assert [it["stream"] for it in far.bodies] == [True, True]


@pytest.mark.parametrize(
    ("reply", "limits", "why"),
    [
        (Reply(parts=["half", "whole"], cut=True), {}, "cut off"),
        (Reply(parts=["x" * 400] * 9), {"response_bytes_max": 1000}, "more than 1000 bytes"),
        (Reply(parts=["half"], ends=False), {}, "without a `finish_reason`"),
        (Reply(status=500, body=b"oops"), {}, "answered 500"),
        (Reply(body=b"{no stream"), {}, "without content"),
    ],
)
async def test_what_breaks_in_the_middle_has_failed_and_is_not_asked_again(
    reply: Reply, limits: dict[str, Any], why: str
) -> None:
    """As with an answer that comes at once: it may have cost, so it is asked once."""
    async with endpoint(reply) as far:
        link = link_to(far, **limits)
        call = EffectCall("k", link, lambda _: None)
        act = Act(EFFECTOR, request(stream="parts"), link, call)
        task = asyncio.create_task(send(act, lambda: None, lambda _: None))
        await asyncio.wait([task])
        outcome, text = receipt_of(task, act)
        assert (outcome, len(far.asked)) == ("failed", 1)
        assert why in orjson.loads(text)["detail"]
        took = {"tokens_in": 10, "tokens_out": 5, "requests": 1}
        assert act.used == ({} if reply.ends else took), "what the endpoint says before it breaks off is counted"


async def _parts(gate: RunningGate) -> list[dict[str, Any]]:
    rows = await gate.rows("SELECT body FROM channel_message ORDER BY position")
    return [orjson.loads(row[0]) for row in rows]


async def test_parts_come_to_a_channel_and_a_replay_tells_none_twice(quick_url: str) -> None:
    """The host dies between two parts, and the turn after its receipt: the model is asked once, each part told once.

    An answer that breaks off says so in the channel, too.
    """
    async with scene(quick_url) as (gate, far):
        await gate.channel("said")
        await respecified(gate, spec(stream="said", tools=[{"name": "cpu", "effect": "machine.read"}]))
        slow = Reply(parts=["It ", "is ", "hot."], after_first=asyncio.Event())
        far.script = [slow]
        asked = asyncio.create_task(gate.ask("thinker", "how is it?", "m1", 40))
        await gate.until("SELECT 1 FROM channel_message", bool)
        first = await _parts(gate)
        assert (first[0]["data"]["text"], first[0]["data"]["done"], first[0]["type"]) == ("It ", False, "steward.part")
        gate.hosts[0].kill()
        gate.host()
        assert slow.after_first is not None
        slow.after_first.set()
        assert await asked == "It is hot."
        found = [it["data"] for it in await _parts(gate)]
        assert "".join(it["text"] for it in found) == "It is hot."
        assert [it["part"] for it in found] == list(range(len(found)))
        assert [it["part"] for it in found if it["done"]] == [len(found) - 1]
        assert found[-1]["outcome"] == "succeeded"
        assert len({it["attempt"] for it in found}) == len(far.asked) == 1
        (result,) = await gate.rows("SELECT result FROM journal WHERE kind = 'effect'")
        assert orjson.loads(result[0])["text"] == "It is hot."
        far.script = [Reply(parts=["half ", "whole"], cut=True)]
        assert (await gate.ask("thinker", "and now?", "m2"))["reason"] == "EFFECT_FAILED"
        assert [it["data"]["outcome"] for it in await _parts(gate) if it["data"]["done"]] == ["succeeded", "failed"]


@pytest.mark.parametrize("parts", [["It ", "is ", "hot."], ["hot."]], ids=["several parts", "one, with the receipt"])
async def test_a_channel_that_is_not_there_is_made_by_the_first_part(quick_url: str, parts: list[str]) -> None:
    """As by any first use: whoever looks there finds all of the answer, and the agent made it."""
    async with scene(quick_url) as (gate, far):
        await respecified(gate, spec(stream="said", tools=[]))
        slow = Reply(parts=parts, after_first=asyncio.Event() if len(parts) > 1 else None)
        far.script = [slow]
        asked = asyncio.create_task(gate.ask("thinker", "how is it?", "m1", 40))
        if slow.after_first is not None:
            await gate.until("SELECT 1 FROM channel_message", bool)
            slow.after_first.set()
        assert await asked == "".join(parts)
        found = [it["data"] for it in await _parts(gate)]
        assert "".join(it["text"] for it in found) == "".join(parts)
        made = await gate.rows("SELECT principal, data FROM event WHERE type = 'resource.created' AND name = 'said'")
        assert [(by, orjson.loads(data)["first_use"]) for by, data in made] == [("default/thinker", True)]
        assert await gate.rows("SELECT ephemeral FROM channel WHERE name = 'said'") == [(1,)]


async def test_a_gate_that_dies_in_a_stream_begins_anew(quick_url: str) -> None:
    """The model is asked once more, and its parts are those of another attempt, from the first on."""
    async with scene(quick_url) as (gate, far):
        await gate.channel("said")
        await respecified(gate, spec(stream="said", tools=[]))
        far.script = [Reply(parts=["It ", "is"], after_first=asyncio.Event()), Reply(parts=["All ", "well."])]
        asked = asyncio.create_task(gate.ask("thinker", "how is it?", "m1", 40))
        await gate.until("SELECT 1 FROM channel_message", bool)
        gate.kill()
        gate.start()
        assert await asked == "All well."
        found = [it["data"] for it in await _parts(gate)]
        by_attempt = [list(of) for _, of in itertools.groupby(found, key=lambda it: it["attempt"])]
        assert ["".join(it["text"] for it in of) for of in by_attempt] == ["It ", "All well."]
        assert [of[0]["part"] for of in by_attempt] == [0, 0]


async def test_what_is_cut_anywhere_is_told_as_the_answer_has_it(quick_url: str) -> None:
    """Halves of a character are joined, or replaced where they stay alone; of the secret no part is told."""
    async with scene(quick_url) as (gate, far):
        await gate.channel("said")
        await respecified(gate, spec(stream="said", tools=[]))
        first = asyncio.Event()
        parts = ["It is \ud83d", "\ude00, co", "rrect ho", "rse \ud83d", ", or corr"]
        far.script = [Reply(parts=parts, after_first=first)]
        asked = asyncio.create_task(gate.ask("thinker", "how is it?", "m1", 20))
        await gate.until("SELECT 1 FROM channel_message", bool)
        first.set()
        assert await asked == "It is 😀, [secret] \ufffd, or corr"
        found = [it["data"] for it in await _parts(gate)]
        assert found[0]["text"] == "It is "
        assert "".join(it["text"] for it in found) == "It is 😀, [secret] \ufffd, or corr"
        assert (found[-1]["done"], found[-1]["outcome"]) == (True, "succeeded")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(refusal="not that \ud83d", parts=["well, "]), "the model refused: not that \ufffd"),
        (Reply(parts=["half"], finish="content_filter"), "content_filter"),
    ],
)
async def test_what_is_withheld_in_a_stream_has_failed(reply: Reply, why: str) -> None:
    """As at once; it has cost what it says."""
    async with endpoint(reply) as far:
        call = EffectCall("k", link_to(far), lambda _: None)
        act = Act(EFFECTOR, request(stream="parts"), call.link, call)
        task = asyncio.create_task(send(act, lambda: None, lambda _: None))
        await asyncio.wait([task])
        outcome, text = receipt_of(task, act)
        assert (outcome, act.used) == ("failed", {"tokens_in": 10, "tokens_out": 5, "requests": 1})
        assert orjson.loads(text)["detail"].endswith(why)
