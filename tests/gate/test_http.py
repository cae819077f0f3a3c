"""`http.request` against a far side that counts: answers, bounds, secrets, addresses, doubts, late answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from controlplane.effects.sending import ATTEMPTS_MAX
from tests.gate.counting import KEY, Counting, counting
from tests.gate.far import (
    HELD,
    HONOURED,
    IGNORED,
    SECRET,
    connected,
    grants,
    held,
    refused,
    request,
    secret,
    settle,
)
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
SHORT = {"timeout_s": 0.5}
HAPPENED = ("effect.in_doubt", "effect.settled")


@contextlib.asynccontextmanager
async def scene(url: str, *, honours: bool = False) -> AsyncIterator[tuple[RunningGate, Counting]]:
    """A gate, a far side, and a client that is loaded: what it costs to load is nobody's timeout."""
    async with counting(honours=honours) as far, running(url, send_within_s=0.6, hold_s=60) as gate:
        code = await gate.code(SOURCE)
        names = ("far", "patient", "keyed", "shut", "locked", "limited", "lost", "gets")
        await gate.agent("noter", code, "Noter", **grants(*names, "nowhere"))
        await connected(gate, "patient", far, IGNORED)
        for n in range(20):  # on a busy machine loading it can take longer than a request may wait
            if "status" in await gate.ask("noter", request("patient", "GET"), f"warm{n}"):
                break
        far.asked.clear()
        far.acts.clear()
        yield gate, far


async def test_a_request_is_answered_within_its_bounds(quick_url: str) -> None:
    """Method, path, query, headers and body go out; status, headers, JSON or text, and no secret, come back."""
    async with scene(quick_url) as (gate, far):
        await secret(gate, "token")
        await connected(gate, "locked", far, HONOURED, secret={"name": "token", "key": "token"})
        far.reply, far.extra = orjson.dumps({"you": f"Bearer {SECRET}"}), "X-Echo: correct horse\r\n"
        asked = request("locked", headers={"X-Mine": "1"}, query={"a": [1, 2], "b": True})
        answer = await gate.ask("noter", asked, "m1")
        assert (answer["status"], answer["json"], answer["text"]) == (200, {"you": "Bearer [secret]"}, None)
        assert answer["headers"]["x-echo"] == "[secret]"
        seen = far.asked[-1]
        assert (seen.method, seen.path, seen.body) == ("POST", "/v1/orders?a=1&a=2&b=true", b'{"order":1}')
        assert (seen.headers["authorization"], seen.headers["x-mine"]) == (f"Bearer {SECRET}", "1")
        assert seen.headers[KEY].endswith(":0:0")
        stored = await gate.rows("SELECT body, result FROM journal UNION ALL SELECT data, type FROM event")
        assert SECRET not in str(stored)
        far.reply, far.kind, far.extra = "grün".encode(), "text/plain; charset=utf-8", ""
        assert (await gate.ask("noter", request("locked", "PUT", text="x"), "m2"))["text"] == "grün"
        await connected(gate, "limited", far, IGNORED, limits={"response_bytes_max": 3})
        answer = await gate.ask("noter", request("limited", "GET"), "m3")
        assert (answer["text"], answer["truncated"]) == ("gr", True), "half a letter is none"
        far.status, far.extra = 302, f"Location: {far.endpoint}/elsewhere\r\n"
        assert (await gate.ask("noter", request("patient", "GET"), "m4"))["status"] == 302, "followed by nobody"


async def test_what_can_not_be_sent_says_why(quick_url: str) -> None:
    """No connection, not granted, an inner address, no secret, nobody there, a header that is not theirs."""
    async with scene(quick_url) as (gate, far), counting() as gone:
        await connected(gate, "shut", far, {})
        await connected(gate, "keyed", far, HONOURED)
        await connected(gate, "locked", far, IGNORED, secret={"name": "none", "key": "token"})
        gone.port = 1
        await connected(gate, "lost", gone, IGNORED)
        cases: list[tuple[dict[str, Any], str]] = [
            (request("nowhere"), "NO_CONNECTION"),
            (request("other"), "NOT_GRANTED"),
            (request("shut"), "FORBIDDEN_ADDRESS"),
            (request("locked"), "NOT_SET_UP"),
            (request("lost"), "EFFECT_FAILED"),
            (request("keyed", headers={"Idempotency-Key": "mine"}), "INVALID_VALUE"),
            (request("patient", headers={"Authorization": "mine"}), "INVALID_VALUE"),
            (request("patient", path="http://elsewhere/"), "INVALID_VALUE"),
            (request("patient", path="../up"), "INVALID_VALUE"),
            (request("patient", "GET", json=1), "INVALID_VALUE"),
        ]
        for n, (asked, reason) in enumerate(cases):
            assert await gate.ask("noter", asked, f"m{n}") == reason, asked
        assert far.asked == []
        assert await gate.rows(HELD) == [], "what was not sent is in no doubt"


async def test_a_connection_s_limits_hold_for_all_agents_together(quick_url: str) -> None:
    """Never more in flight than allowed, and calls come no closer than the rate says."""
    async with scene(quick_url) as (gate, far):
        limits = {"in_flight_max": 2, "calls_per_s_max": 20}
        await connected(gate, "limited", far, IGNORED, limits=limits)
        code = (await gate.rows("SELECT digest FROM code"))[0][0]
        for n in range(6):
            await gate.agent(f"n{n}", code, "Noter", **grants("limited"))
        far.late_s = 0.06
        answers = await asyncio.gather(*(gate.ask(f"n{n}", request("limited", "GET"), f"m{n}") for n in range(6)))
        assert {it["status"] for it in answers} == {200}
        assert far.busiest <= 2
        times = [it.at for it in far.asked]
        assert times[-1] - times[0] > 4 * 0.05, "six calls take at least five twentieths of a second"


async def test_a_broken_answer_is_sent_again_only_where_the_far_side_promises(quick_url: str) -> None:
    """Under an honoured key, or by a method that the connection names, twice; otherwise once, and held."""
    async with scene(quick_url, honours=True) as (gate, far):
        await connected(gate, "keyed", far, HONOURED)
        await connected(gate, "gets", far, {**IGNORED, "repeats_safely": ["GET"]})
        await connected(gate, "far", far, IGNORED)
        far.behave = ["lost"]
        assert (await gate.ask("noter", request("keyed"), "m1"))["json"] == {"done": 0}
        assert (len(far.asked), len(far.acts)) == (2, 1), "sent twice, done once"
        far.behave, far.honours = ["lost"], False
        assert (await gate.ask("noter", request("gets", "GET"), "m2"))["status"] == 200
        far.asked.clear()
        far.behave = ["lost"]
        asked = asyncio.create_task(gate.ask("noter", request("far", "PUT"), "m3"))
        turn = await held(gate)
        assert len(far.asked) == 1, "a method that is called idempotent promises nothing"
        about = (await gate.rows("SELECT data FROM event WHERE type = 'effect.in_doubt'"))[0][0]
        assert {"why", "until", "idempotency_key", "effect", "connection"} <= orjson.loads(about).keys()
        await gate.until("SELECT owner FROM agent WHERE name = 'noter'", lambda rows: rows == [(None,)])
        assert await gate.rows("SELECT outcome FROM turn WHERE turn_id = :it", it=turn) == [("parked",)]
        await settle(gate, turn, "failed")
        assert await asked == "EFFECT_FAILED"
        assert len(far.asked) == 1


@pytest.mark.parametrize(("lifetime_s", "sent"), [(1, 1), (3600, 2)])
async def test_a_key_is_relied_on_only_while_it_lives(quick_url: str, lifetime_s: int, sent: int) -> None:
    """Where the far side may have forgotten it before a repetition has ended, the effect is held instead."""
    async with scene(quick_url, honours=True) as (gate, far):
        options = {**HONOURED, "key_lifetime_s": lifetime_s}
        await connected(gate, "keyed", far, options, limits={"timeout_s": 2})
        far.behave = ["lost"]
        asked = asyncio.create_task(gate.ask("noter", request("keyed"), "m1"))
        if sent == 1:
            await settle(gate, await held(gate), "succeeded", result={"json": {"done": 0}})
        assert (await asked)["json"] == {"done": 0}
        assert len({it.headers[KEY] for it in far.asked}) == 1
        assert (len(far.asked), len(far.acts)) == (sent, 1)


async def test_what_repeats_safely_is_held_when_it_stays_in_doubt(quick_url: str) -> None:
    """That trying again is harmless does not say that nothing happened: it is never told as failed."""
    async with scene(quick_url) as (gate, far):
        await connected(gate, "gets", far, {**IGNORED, "repeats_safely": ["GET"]})
        far.behave = ["lost"] * ATTEMPTS_MAX
        asked = asyncio.create_task(gate.ask("noter", request("gets", "GET"), "m1"))
        turn = await held(gate)
        assert 1 <= len(far.asked) <= ATTEMPTS_MAX
        await settle(gate, turn, "succeeded", result={"done": True})
        assert await asked == {"done": True}


async def test_a_late_answer_settles_what_was_held(quick_url: str) -> None:
    """The turn is held when its time is over, nobody may settle it yet, and the answer that comes counts."""
    async with scene(quick_url) as (gate, far):
        await connected(gate, "far", far, IGNORED, limits=SHORT)
        far.late_s = 0.85
        asked = asyncio.create_task(gate.ask("noter", request("far"), "m1"))
        turn = await held(gate)
        assert await refused(gate, turn, "retry") == "STILL_SENDING"
        assert (await asked)["json"] == {"done": 0}
        assert (len(far.asked), len(far.acts)) == (1, 1)
        assert await refused(gate, turn, "retry") == "NOT_HELD"
        assert await refused(gate, turn, "failed", position=7) == "NOT_FOUND"


async def test_an_operator_settles_once(quick_url: str) -> None:
    """A hang is held; retry sends it once more; held again, it is said to have succeeded, and that stands."""
    async with scene(quick_url) as (gate, far):
        await connected(gate, "far", far, IGNORED, limits=SHORT)
        far.behave = ["hang", "lost"]
        asked = asyncio.create_task(gate.ask("noter", request("far"), "m1"))
        turn = await held(gate)
        await settle(gate, turn, "retry")
        assert len(await gate.until("SELECT 1 FROM event WHERE type = 'effect.in_doubt'", lambda r: len(r) == 2)) == 2
        assert len(far.asked) == 2
        answers = [await settle(gate, turn, "succeeded", result={"order": 5}) for _ in range(2)]
        assert answers[0] == answers[1]
        assert await asked == {"order": 5}
        assert await refused(gate, turn, "succeeded", result={"order": 6}) == "NOT_HELD"
        assert await refused(gate, turn, "failed") == "NOT_HELD"
        assert len(far.asked) == 2
        types = await gate.rows("SELECT type FROM event WHERE type LIKE 'effect.%' ORDER BY cursor")
        assert [row[0] for row in types] == [*HAPPENED, *HAPPENED]
        assert await gate.rows("SELECT outcome, attempts FROM turn WHERE turn_id = :it", it=turn) == [("committed", 1)]


def test_an_answer_that_is_nested_too_deep_is_kept_as_text() -> None:
    """What was done is never told as failed, because its answer is odd."""
    from httpx import Response

    from controlplane.protocols.http_client import _answer

    body = b"[" * 300 + b"]" * 300
    answered = _answer(Response(200, headers={"content-type": "application/json"}), body, truncated=False, secret="")
    assert (answered["json"], answered["text"]) == (None, body.decode())
