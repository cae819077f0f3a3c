"""Tokens: who may call, for how long, and that nothing shows them twice."""

from typing import Any

import orjson
import pytest
from sqlmodel import select

from controlplane.guard import tokens
from controlplane.store.store import Store
from controlplane.store.tables import EventRow, TokenRow
from schemas.calls import PageInput
from schemas.plan import Preview
from schemas.principal import Call, Principal
from schemas.problem import Refusal
from schemas.records import TokenCreated, TokenCreateInput, TokenRevokeInput

pytestmark = pytest.mark.anyio
ADMIN = Principal("admin", "admin", ("*",))


def call(operation: str, now: float = 100.0, *, dry_run: bool = False) -> Call:
    return Call(ADMIN, operation, now, None, dry_run)


async def create(store: Store, now: float = 100.0, **given: Any) -> TokenCreated:
    made = await tokens.handlers(store)["tokens.create"](
        call("tokens.create", now), TokenCreateInput.model_validate({"principal": "bot", "role": "operator"} | given)
    )
    assert isinstance(made, TokenCreated)
    return made


async def reason(store: Store, token: str, now: float) -> str:
    with pytest.raises(Refusal) as refused:
        await tokens.authenticate(store, token, now)
    assert token not in refused.value.problem.model_dump_json()
    return refused.value.problem.reason


async def test_a_created_token_tells_who_calls(store: Store) -> None:
    """What was created with the token is what a call by it is."""
    made = await create(store, namespaces=["default", "ops"])
    assert made.token is not None
    assert tokens._FORM.fullmatch(made.token)
    principal = await tokens.authenticate(store, made.token, 101.0)
    assert principal == Principal("bot", "operator", ("default", "ops"), None, made.token_id)


@pytest.mark.parametrize("wrong", ["", "stw_", "stw_" + "a" * 43, "STW_" + "a" * 43, "stw_" + "ä" * 43, "x" * 5000])
async def test_a_wrong_token_is_nobody(quick_store: Store, wrong: str) -> None:
    """What is no token of this installation is refused, whatever it looks like."""
    await create(quick_store)
    with pytest.raises(Refusal, match="UNAUTHENTICATED"):
        await tokens.authenticate(quick_store, wrong, 101.0)


async def test_an_expired_or_revoked_token_is_refused_at_once(store: Store) -> None:
    """Expiry and revocation hold from the very next call."""
    short, revoked = await create(store, expires_in_s=60), await create(store)
    assert short.token is not None
    assert revoked.token is not None
    assert (await tokens.authenticate(store, short.token, 159.9)).name == "bot"
    assert await reason(store, short.token, 160.0) == "UNAUTHENTICATED"
    revoke, given = tokens.handlers(store)["tokens.revoke"], TokenRevokeInput(token_id=revoked.token_id)
    preview = await revoke(call("tokens.revoke", dry_run=True), given)
    assert isinstance(preview, Preview)
    assert (await tokens.authenticate(store, revoked.token, 101.0)).name == "bot"
    first = await revoke(call("tokens.revoke", 110.0), given)
    assert await reason(store, revoked.token, 111.0) == "UNAUTHENTICATED"
    assert await revoke(call("tokens.revoke", 120.0), given) == first


async def test_neither_token_nor_hash_is_stored_or_told(store: Store) -> None:
    """The row holds a hash, events hold neither, and lists show neither."""
    made = await create(store)
    assert made.token is not None
    rows = await store.read(lambda session: [row.model_dump_json() for row in session.exec(select(TokenRow)).all()])
    events = await store.read(lambda session: [row.model_dump() for row in session.exec(select(EventRow)).all()])
    listed = await tokens.handlers(store)["tokens.list"](call("tokens.list"), PageInput())
    assert made.token not in "".join(rows)
    for shown in (repr(events), listed.model_dump_json()):
        assert made.token not in shown
        assert tokens.hashed(made.token) not in shown
    assert [(e["type"], e["kind"], e["namespace"], e["name"]) for e in events] == [
        ("token.created", "Token", "", made.token_id)
    ]
    assert orjson.loads(events[0]["data"])["role"] == "operator"


async def test_a_dry_run_creates_nothing(store: Store) -> None:
    """The preview says what would be, after the same checks."""
    handler = tokens.handlers(store)["tokens.create"]
    given = TokenCreateInput(principal="bot", role="viewer")
    preview = await handler(call("tokens.create", dry_run=True), given)
    assert isinstance(preview, Preview)
    assert preview.would == ["create a token of role viewer for bot in default"]
    assert await store.read(lambda session: session.exec(select(TokenRow)).all()) == []
    with pytest.raises(Refusal):
        await handler(call("tokens.create", dry_run=True), TokenCreateInput(principal="bot", role="agent"))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"role": "agent"}, "/agent"),
        ({"role": "operator", "agent": "echo"}, "/agent"),
        ({"role": "agent", "agent": "echo", "namespaces": ["a", "b"]}, "/namespaces"),
        ({"role": "agent", "agent": "echo", "namespaces": ["*"]}, "/namespaces"),
        ({"role": "admin", "principal": "steward"}, "/principal"),
    ],
)
async def test_fields_that_do_not_go_together_are_refused(
    quick_store: Store, given: dict[str, Any], field: str
) -> None:
    """An agent's token names one agent in one namespace, and nobody calls as the plane."""
    with pytest.raises(Refusal) as refused:
        await create(quick_store, **given)
    assert refused.value.problem.field == field


async def test_lists_go_newest_first_in_pages(store: Store) -> None:
    """Pages follow each other without gap or repetition, also where times are equal."""
    made = [(await create(store, now=100.0 + number // 3)).token_id for number in range(10)]
    handler = tokens.handlers(store)["tokens.list"]
    seen: list[str] = []
    page: str | None = None
    while True:
        answer: Any = await handler(call("tokens.list"), PageInput(limit=3, page=page))
        seen += [item.token_id for item in answer.items]
        page = answer.next_page
        if page is None:
            break
    assert sorted(seen) == sorted(made)
    assert seen[0] == made[9]
    with pytest.raises(Refusal, match="INVALID_CURSOR"):
        await handler(call("tokens.list"), PageInput(page="nonsense"))


async def test_a_list_of_a_namespace_shows_what_reaches_it(quick_store: Store) -> None:
    """Tokens of other namespaces are left out."""
    for namespaces in (["a"], ["ab"], ["*"], ["b", "a"]):
        await create(quick_store, namespaces=namespaces)
    answer: Any = await tokens.handlers(quick_store)["tokens.list"](call("tokens.list"), PageInput(namespace="a"))
    assert sorted(item.namespaces for item in answer.items) == [["*"], ["a"], ["b", "a"]]


async def test_the_admin_token_is_made_once_and_again_when_it_is_gone(store: Store) -> None:
    """A good one is kept; a revoked, foreign or missing one is replaced."""
    first = await tokens.ensure_admin(store, None, 1.0)
    assert await tokens.ensure_admin(store, first, 2.0) == first
    principal = await tokens.authenticate(store, first, 3.0)
    assert (principal.name, principal.role, principal.namespaces) == ("admin", "admin", ("*",))
    await tokens.handlers(store)["tokens.revoke"](call("tokens.revoke"), TokenRevokeInput(token_id=principal.token_id))
    second = await tokens.ensure_admin(store, first, 200.0)
    assert second != first
    assert (await tokens.authenticate(store, second, 201.0)).role == "admin"


async def test_an_unknown_token_id_says_where_to_look(quick_store: Store) -> None:
    """Revoking what is not there names the list."""
    with pytest.raises(Refusal) as refused:
        await tokens.handlers(quick_store)["tokens.revoke"](call("tokens.revoke"), TokenRevokeInput(token_id="tok_0"))
    assert refused.value.problem.reason == "NOT_FOUND"
    assert [step.operation for step in refused.value.problem.next] == ["tokens.list"]


async def test_nobody_hands_out_more_than_they_reach(store: Store) -> None:
    """An admin of one namespace makes tokens for it alone, and sees none of others."""
    small = Principal("small", "admin", ("default",))
    made = tokens.handlers(store)
    root = await create(store, namespaces=["*"])
    for operation, given in (
        ("tokens.create", TokenCreateInput(principal="esc", role="admin", namespaces=["*"])),
        ("tokens.create", TokenCreateInput(principal="esc", role="viewer", namespaces=["default", "other"])),
        ("tokens.revoke", TokenRevokeInput(token_id=root.token_id)),
    ):
        with pytest.raises(Refusal) as refused:
            await made[operation](Call(small, operation, 100.0), given)
        assert refused.value.problem.reason == ("NOT_FOUND" if operation == "tokens.revoke" else "FOREIGN_NAMESPACE")
    own: Any = await made["tokens.create"](
        Call(small, "tokens.create", 100.0), TokenCreateInput(principal="ours", role="viewer")
    )
    assert own.namespaces == ["default"]
    await create(store, namespaces=["default", "other"])
    listed: Any = await made["tokens.list"](Call(small, "tokens.list", 100.0), PageInput())
    assert [item.token_id for item in listed.items] == [own.token_id]
    with pytest.raises(Refusal, match="INVALID_CURSOR"):
        await made["tokens.list"](Call(small, "tokens.list", 100.0), PageInput(page=root.token_id))
