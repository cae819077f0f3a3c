"""Tokens: who calls. Shown once, stored as a hash, checked by one indexed read.

A token is 256 random bits, so its plain SHA-256 can not be searched for; the lookup goes by that
hash, and nothing that is compared depends on how much of a guess was right. Expiry and revocation
hold from the next call on: nothing here is cached. Neither token nor hash ever reaches an event, a
log or a problem; the dispatcher keeps answers under a request id without the token.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import BaseModel
from sqlalchemy import ColumnElement, bindparam, func, insert, or_, select, tuple_, update
from sqlmodel import Session, col

from controlplane.resources.problems import refuse
from controlplane.resources.system import TokenList
from controlplane.store.store import Store
from controlplane.store.tables import TokenRow
from controlplane.store.unit import Unit
from schemas.base import short_id
from schemas.calls import PageInput
from schemas.plan import Preview
from schemas.ports import Handler
from schemas.principal import PLANE, Call, Principal
from schemas.problem import Next, Refusal
from schemas.records import Role, TokenCreated, TokenCreateInput, TokenRevokeInput, TokenView

PREFIX = "stw_"
ADMIN = "admin"
FIRST_ANSWER_S = 7 * 86_400.0  # so long a request id speaks of one token
_FORM = re.compile(r"stw_[A-Za-z0-9_-]{43}")
_TOKENS: Any = TokenRow.__table__  # type: ignore[attr-defined]
_BY_HASH = select(
    _TOKENS.c.hash,
    _TOKENS.c.principal,
    _TOKENS.c.role,
    _TOKENS.c.namespaces,
    _TOKENS.c.agent,
    _TOKENS.c.token_id,
    _TOKENS.c.expires_at,
    _TOKENS.c.revoked_at,
).where(_TOKENS.c.hash == bindparam("hash"))


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def authenticate(store: Store, token: str, now: float) -> Principal:
    """Whose token it is; raises UNAUTHENTICATED."""
    if not _FORM.fullmatch(token):
        raise refuse("UNAUTHENTICATED", "the token is not one of this installation")
    wanted = hashed(token)
    row = await store.read(lambda session: session.connection().execute(_BY_HASH, {"hash": wanted}).first())
    if row is None or not hmac.compare_digest(row.hash, wanted):
        raise refuse("UNAUTHENTICATED", "the token is not one of this installation")
    if row.revoked_at is not None:
        raise refuse("UNAUTHENTICATED", f"the token {row.token_id} was revoked", token_id=row.token_id)
    if row.expires_at is not None and row.expires_at <= now:
        raise refuse("UNAUTHENTICATED", f"the token {row.token_id} has expired", token_id=row.token_id)
    return Principal(row.principal, row.role, tuple(orjson.loads(row.namespaces)), row.agent, row.token_id)


async def ensure_admin(store: Store, held: str | None, now: float) -> str:
    """The admin's token: the one that is held while it is good, else a new one, so nobody is locked out for good."""
    if held is not None and await _is_admin(store, held, now):
        return held
    token = new_token()
    row = _row(token, ADMIN, "admin", ["*"], None, now, None)
    if not await store.write(_created(row, PLANE.name, now)):
        raise refuse("CONFLICT", "the admin's token was made by somebody else at the same time")
    return token


async def _is_admin(store: Store, token: str, now: float) -> bool:
    try:
        principal = await authenticate(store, token, now)
    except Refusal as refusal:
        if refusal.problem.reason != "UNAUTHENTICATED":
            raise
        return False
    return principal.role == "admin" and "*" in principal.namespaces


def _row(
    token: str, principal: str, role: Role, namespaces: list[str], agent: str | None, now: float, expires: float | None
) -> dict[str, Any]:
    return {
        "token_id": f"tok_{secrets.token_hex(8)}",
        "hash": hashed(token),
        "principal": principal,
        "role": role,
        "namespaces": orjson.dumps(namespaces).decode(),
        "agent": agent,
        "created_at": now,
        "expires_at": expires,
        "revoked_at": None,
    }


def _created(row: Mapping[str, Any], by: str, now: float) -> Unit:
    return Unit().run(insert(TokenRow).values(**row), 1).add(_event("token.created", row, by, now))


def _event(what: str, row: Mapping[str, Any], by: str, now: float) -> Unit:
    """Tokens belong to the installation: their events carry no namespace."""
    data = {
        "principal": row["principal"],
        "role": row["role"],
        "namespaces": orjson.loads(row["namespaces"]),
        "agent": row["agent"],
        "expires_at": row["expires_at"],
    }
    return Unit().event(what, kind="Token", namespace="", name=row["token_id"], now=now, principal=by, data=data)


def view(row: Mapping[str, Any]) -> TokenView:
    """A token as it is listed."""
    return TokenView(
        token_id=row["token_id"],
        principal=row["principal"],
        role=row["role"],
        namespaces=orjson.loads(row["namespaces"]),
        agent=row["agent"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        expires_at=_time(row["expires_at"]),
        revoked_at=_time(row["revoked_at"]),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _check(given: TokenCreateInput) -> None:
    """What the fields say together; raises INVALID_VALUE."""
    if given.principal == PLANE.name:
        detail = f"{given.principal} is the plane itself"
        raise refuse("INVALID_VALUE", detail, field="/principal", principal=given.principal)
    if given.role != "agent" and given.agent is not None:
        detail = f"only the role agent speaks for an agent, not {given.role}"
        raise refuse("INVALID_VALUE", detail, field="/agent", role=given.role, agent=given.agent)
    if given.role != "agent":
        return
    if given.agent is None:
        raise refuse("MISSING_FIELD", "the role agent needs the agent it speaks for", field="/agent", role=given.role)
    if len(given.namespaces) != 1 or "*" in given.namespaces:
        detail = "the role agent has exactly one namespace, the agent's"
        raise refuse("INVALID_VALUE", detail, field="/namespaces", namespaces=list(given.namespaces))


def handlers(store: Store) -> dict[str, Handler]:
    """`tokens.create`, `tokens.list`, `tokens.revoke`."""

    async def create(call: Call, given: TokenCreateInput) -> BaseModel:
        _check(given)
        for index, namespace in enumerate(given.namespaces):
            _require_reach(call.principal, namespace, f"/namespaces/{index}")
        namespaces = list(dict.fromkeys(given.namespaces))
        if call.dry_run:
            for_what = f"a token of role {given.role} for {given.principal} in {', '.join(namespaces)}"
            return Preview(operation=call.operation, would=[f"create {for_what}"], undo="compensate")
        token = new_token()
        expires = None if given.expires_in_s is None else call.now + given.expires_in_s
        row = _row(token, given.principal, given.role, namespaces, given.agent, call.now, expires)
        if call.request_id is not None:
            row["token_id"] = short_id("tok", call.principal.identity, call.request_id)
            before = await store.read(lambda session: _known(session, row["token_id"], call.principal))
            if before is not None and before["created_at"] > call.now - FIRST_ANSWER_S:
                _require_same(before, row)
                return await _told_again(store, call, before, token)
            if before is not None:
                row["token_id"] = f"tok_{secrets.token_hex(8)}"
        if not await store.write(_created(row, call.principal.name, call.now)):
            raise refuse("CONFLICT", "the token was not stored; nothing was changed")
        return TokenCreated(**view(row).model_dump(), token=token)

    async def listed(call: Call, given: PageInput) -> BaseModel:
        if given.namespace is not None:
            _require_reach(call.principal, given.namespace, "/namespace")
        rows = await store.read(lambda session: _page(session, given, call.principal))
        shown = rows[: given.limit]
        return TokenList(
            items=[view(row) for row in shown],
            next_page=shown[-1]["token_id"] if len(rows) > len(shown) else None,
        )

    async def revoke(call: Call, given: TokenRevokeInput) -> BaseModel:
        row = await store.read(lambda session: _one(session, given.token_id, call.principal))
        if call.dry_run:
            would = [] if row["revoked_at"] is not None else [f"refuse token {given.token_id} from now on"]
            return Preview(operation=call.operation, would=would, undo="none")
        if row["revoked_at"] is None:
            await store.write(_revoked(row, call))  # False: somebody else was first, which is as good
            row = await store.read(lambda session: _one(session, given.token_id, call.principal))
        return view(row)

    return {"tokens.create": create, "tokens.list": listed, "tokens.revoke": revoke}


async def _told_again(store: Store, call: Call, before: Mapping[str, Any], token: str) -> TokenCreated:
    """The answer to a call whose first answer was never given: the same token's record, under a new secret."""
    if before["revoked_at"] is None:
        statement = update(TokenRow).where(
            col(TokenRow.token_id) == before["token_id"], col(TokenRow.hash) == before["hash"]
        )
        unit = Unit().run(statement.values(hash=hashed(token)), 1)
        if not await store.write(unit.add(_event("token.renewed", before, call.principal.name, call.now))):
            raise refuse("CONFLICT", "others wrote at the same time; try again", retry_after_s=0.1)
        return TokenCreated(**view(before).model_dump(), token=token)
    return TokenCreated(**view(before).model_dump(), token=None)


def _known(session: Session, token_id: str, principal: Principal) -> Mapping[str, Any] | None:
    query = select(_TOKENS).where(_TOKENS.c.token_id == token_id, *_within(principal))
    row = session.connection().execute(query).mappings().first()
    return None if row is None else dict(row)


def _require_same(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """A secret is told again for what was asked for before, and for nothing else."""
    for name in ("principal", "role", "namespaces", "agent"):
        if before[name] != wanted[name]:
            detail = f"this request_id made a token of another {name}"
            raise refuse("REQUEST_ID_REUSED", detail, field="/request_id", name=name)


def _revoked(row: Mapping[str, Any], call: Call) -> Unit:
    statement = update(TokenRow).where(col(TokenRow.token_id) == row["token_id"], col(TokenRow.revoked_at).is_(None))
    unit = Unit().run(statement.values(revoked_at=call.now), 1)
    return unit.add(_event("token.revoked", row, call.principal.name, call.now))


def _require_reach(principal: Principal, namespace: str, field: str) -> None:
    """Nobody hands out, or looks over, more than they reach themselves."""
    if not principal.reaches(namespace):
        raise refuse(
            "FOREIGN_NAMESPACE",
            f"the token of {principal.name} does not reach {'every namespace' if namespace == '*' else namespace}",
            field=field,
            principal=principal.name,
            namespace=namespace,
        )


def _one(session: Session, token_id: str, principal: Principal) -> Mapping[str, Any]:
    """The row of a token within the principal's reach; any other is answered as absent."""
    query = select(_TOKENS).where(_TOKENS.c.token_id == token_id, *_within(principal))
    row = session.connection().execute(query).mappings().first()
    if row is None:
        step = Next(operation="tokens.list", arguments={}, why="shows the tokens there are")
        raise refuse("NOT_FOUND", f"there is no token {token_id}", field="/token_id", next=[step], token_id=token_id)
    return dict(row)


def _within(principal: Principal) -> list[ColumnElement[bool]]:
    """The condition that a token reaches nothing that the principal does not reach."""
    if "*" in principal.namespaces:
        return []
    left: ColumnElement[str] = _TOKENS.c.namespaces  # a JSON list of names, which hold no quotes
    for namespace in principal.namespaces:
        left = func.replace(left, f'"{namespace}"', "")
    return [func.replace(left, ",", "") == "[]"]


def _page(session: Session, given: PageInput, principal: Principal) -> list[Mapping[str, Any]]:
    """One more than a page, newest first; a page's mark is the id of the last token shown."""
    key = tuple_(_TOKENS.c.created_at, _TOKENS.c.token_id)
    seen = select(_TOKENS).where(*_within(principal))
    query = seen.order_by(_TOKENS.c.created_at.desc(), _TOKENS.c.token_id.desc()).limit(given.limit + 1)
    if given.page is not None:
        last = session.connection().execute(seen.where(_TOKENS.c.token_id == given.page)).mappings().first()
        if last is None:
            raise refuse(
                "INVALID_CURSOR", "the page is not one that this list answered", field="/page", page=given.page
            )
        query = query.where(key < tuple_(last["created_at"], last["token_id"]))
    if given.namespace is not None:
        reaches = (f'%"{given.namespace}"%', '%"*"%')
        query = query.where(or_(*(_TOKENS.c.namespaces.like(pattern) for pattern in reaches)))
    return [dict(row) for row in session.connection().execute(query).mappings()]
