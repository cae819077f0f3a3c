"""The fuzzer sees: defects that are planted into a good plane are found within the bound of `make test`."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuzz.rules import LIVES, SEED
from fuzz.runner import Report, fuzz
from fuzz.targets import in_process
from schemas.channel import Channel, ChannelSpec, ChannelStatus
from schemas.resource import Metadata
from tests.fuzzing.test_rest import OVER_ALL

Spoil = Callable[[Scope, bytes, int, bytes], tuple[int, bytes]]  # (scope, asked, status, answered) → status, answer


class Spoiled:
    """An app that answers as the plane does, but for a planted defect."""

    def __init__(self, app: ASGIApp, spoil: Spoil) -> None:
        self._app, self._spoil = app, spoil

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked, held = await _body(receive), _Held()
        await self._app(scope, _replayed(asked, receive), held)
        status, answered = self._spoil(scope, asked, held.status, held.body)
        headers = [pair for pair in held.headers if pair[0].lower() != b"content-length"]
        if status != held.status:
            headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answered})


class _Held:
    """Keeps an answer."""

    def __init__(self) -> None:
        self.status, self.body, self.headers = 0, b"", []  # type: tuple[int, bytes, list[Any]]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message.get("body", b"")


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return given.pop() if given else await receive()

    return again


def breaks(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Breaks where one optional field is given."""
    return (500, b"{}") if b'"expires_in_s"' in asked and status == 200 else (status, answered)


def takes_anything(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Takes a limit that is out of range."""
    return (
        (200, b'{"items":[],"next_page":null}') if _at(scope, "/v1/channels") and status == 422 else (status, answered)
    )


def refuses_more(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Refuses labels, which the document knows nothing of."""
    if _at(scope, "/v1/secrets/propose") and b'"labels": {"' in asked and status == 200:
        return 422, orjson.dumps({"reason": "INVALID_VALUE", "field": "/manifest/metadata/labels"})
    return status, answered


def answers_less(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Leaves out a field that the document promises."""
    if status == 200 and _at(scope, "/v1/system/status"):
        found = orjson.loads(answered)
        found.pop("as_of")
        return status, orjson.dumps(found)
    return status, answered


def answers_oddly(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Answers with a status that nobody has documented."""
    return (418, answered) if status == 404 and scope["path"].startswith("/v1/turns/") else (status, answered)


def forgets_who_asks(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Answers without a token."""
    return (200, b'{"items":[]}') if status == 401 and _at(scope, "/v1/hosts") else (status, answered)


def takes_the_revoked(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Answers whatever token it is, where a token is revoked."""
    return (200, b"{}") if status == 401 and scope["path"].endswith("/revoke") else (status, answered)


def keeps_the_dead(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    """Answers for a channel that is not there, whatever is asked of it, whether it is not yet, or no more."""
    namespace, *rest = scope["path"].removeprefix("/v1/channels/").split("/")
    if status != 404 or not rest or not scope["path"].startswith("/v1/channels/"):
        return status, answered
    if (scope["method"], len(rest)) != ("GET", 1):
        return 200, b"{}"
    now = datetime.now(UTC)
    metadata = Metadata(namespace=namespace, name=rest[0], revision=1, generation=1, uid="channel_x", created_at=now)
    seen = ChannelStatus(conditions=[], next_position=1, messages=0, waiting=0, subscribers=[])
    return 200, Channel(metadata=metadata, spec=ChannelSpec(), status=seen).model_dump_json().encode()


def _at(scope: Scope, path: str) -> bool:
    return bool(scope["path"] == path)


PLANTED: dict[str, Spoil] = {
    "not_a_server_error": breaks,
    "negative_data_rejection": takes_anything,
    "positive_data_acceptance": refuses_more,
    "response_schema_conformance": answers_less,
    "status_code_conformance": answers_oddly,
    "ignored_auth": forgets_who_asks,
    "deleted_is_gone": keeps_the_dead,
    "revoked_is_refused": takes_the_revoked,
}
TOUCHED = ("tokens.create", "channels.list", "secrets.propose", "system.status", "turns.get", "hosts.list")


def all_of_them(scope: Scope, asked: bytes, status: int, answered: bytes) -> tuple[int, bytes]:
    for spoil in PLANTED.values():
        status, answered = spoil(scope, asked, status, answered)
    return status, answered


@pytest.fixture(scope="module")
def found() -> set[str]:
    """The checks that failed on a plane with every defect in it, under the bound and seed of the clean run."""
    with in_process(None, lambda app: Spoiled(app, all_of_them)) as target:
        report = fuzz(
            target,
            SEED,
            replace(OVER_ALL, lives=3, steps=60),
            only={*TOUCHED, *LIVES["channels"], *LIVES["tokens"]},
            enough=lambda seen: set(PLANTED) <= checks_in(seen),
        )
    return checks_in(report)


def checks_in(report: Report) -> set[str]:
    return {check for _, check, _ in report.findings}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", PLANTED)
def test_a_planted_defect_is_found(found: set[str], check: str) -> None:
    """Whatever kind of promise is broken, the check for it says so."""
    assert check in found
