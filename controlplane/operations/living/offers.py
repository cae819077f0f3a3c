"""`connections.tools` and `connections.accept`: what a far side offers, and what of it may be used.

The gate asks the far side and keeps what it sees; here it is shown beside what was accepted. Accepting names what was
seen by its digest, so that nobody accepts what they have not looked at; the same once more changes nothing.
"""

from typing import Any, NamedTuple

import orjson
from sqlmodel import Session, col, select

from controlplane.operations.living import paging
from controlplane.operations.living.envelopes import moment
from controlplane.operations.living.lookup import absent
from controlplane.protocols.argument_roles import guessed
from controlplane.resources.problems import refuse
from controlplane.store import offers as sql
from controlplane.store.store import Store
from controlplane.store.tables import OfferRow, ResourceRow
from controlplane.store.unit import Unit
from schemas.base import canonical
from schemas.offers import AcceptInput, Offered, Pin, ToolList, ToolsInput, ToolView
from schemas.plan import FieldChange, Preview
from schemas.ports import GatePort, Handler, Role
from schemas.principal import Call
from schemas.problem import Next, Refusal

CHANGES_MAX = 100


class Found(NamedTuple):
    """A connection that is there."""

    uid: str
    protocol: str


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""

    async def tools(call: Call, given: ToolsInput) -> ToolList:
        after = None if given.page is None else paging.decode(given.page, (str,))[0]
        found = await _connection(store, given)
        trouble = None
        if given.refresh:
            asked = {"namespace": given.namespace, "name": given.name}
            trouble = (await gate.control("offers", found.uid, asked))["trouble"]
        rows = await store.read(lambda session: _page(session, found.uid, after, given.limit + 1))
        shown = rows[: given.limit]
        return ToolList(
            items=[_view(row, found.protocol) for row in shown],
            next_page=paging.encode([shown[-1].tool]) if len(rows) > given.limit else None,
            trouble=trouble,
        )

    async def accept(call: Call, given: AcceptInput) -> ToolView | Preview:
        found = await _connection(store, given)
        row = await store.read(lambda session: session.get(OfferRow, (found.uid, given.tool)))
        if row is None:
            raise _no_tool(given)
        pin = pin_of(row)
        _require_usable(pin, given)
        roles = _roles(pin, given)
        if call.dry_run:
            would = [] if _is_so(pin, roles) else [f"{given.tool} of {given.name} could be used by agents"]
            return Preview(operation=call.operation, would=would, undo="none")
        if not _is_so(pin, roles):
            told = canonical(roles).decode()
            unit = Unit().raw(
                sql.ACCEPT, [told, call.principal.name, call.now, found.uid, given.tool, given.digest], expect=1
            )
            about = {"tool": given.tool, "digest": given.digest, "roles": roles}
            unit.event(
                "connection.tool_accepted", kind="Connection", namespace=given.namespace, name=given.name,
                now=call.now, principal=call.principal.name, data=about,
            )  # fmt: skip
            if not await store.write(unit):
                raise refuse("CONFLICT", "what the tool is was changed at the same time; look again", retry_after_s=0.1)
        row = await store.read(lambda session: session.get(OfferRow, (found.uid, given.tool)))
        if row is None:
            raise _no_tool(given)
        return _view(row, found.protocol)

    return {"connections.tools": tools, "connections.accept": accept}


async def _connection(store: Store, given: ToolsInput | AcceptInput) -> Found:
    def query(session: Session) -> Any:
        named = (ResourceRow.kind == "Connection", ResourceRow.namespace == given.namespace)
        asked = select(col(ResourceRow.uid), col(ResourceRow.spec)).where(*named, ResourceRow.name == given.name)
        return session.exec(asked.where(col(ResourceRow.deleted_at).is_(None))).first()

    row = await store.read(query)
    if row is None:
        raise absent("Connection", given.namespace, given.name, "/name")
    return Found(row[0], orjson.loads(row[1])["protocol"])


def _page(session: Session, uid: str, after: str | None, many: int) -> list[OfferRow]:
    query = select(OfferRow).where(OfferRow.connection == uid)
    if after is not None:
        query = query.where(OfferRow.tool > after)
    return list(session.exec(query.order_by(col(OfferRow.tool)).limit(many)))


def pin_of(row: OfferRow) -> Pin:
    """What is kept of one tool."""
    accepted = None if row.accepted_body is None else Offered.model_validate_json(row.accepted_body)
    roles = orjson.loads(row.roles) if row.roles else {}
    seen = Offered.model_validate_json(row.body)
    return Pin(seen, row.digest, row.gone_at is not None, row.accepted, accepted, roles)


def _view(row: OfferRow, protocol: str) -> ToolView:
    pin = pin_of(row)
    return ToolView(
        tool=row.tool,
        effect=f"{protocol}.{row.tool}",
        state=pin.state,
        digest=pin.digest,
        description=pin.seen.description,
        input_schema=pin.seen.input_schema,
        output_schema=pin.seen.output_schema,
        fault=pin.seen.fault or None,
        roles={**guessed(pin.seen.input_schema), **pin.roles},
        changes=[] if pin.accepted_as is None else differences(_words(pin.accepted_as), _words(pin.seen)),
        accepted_digest=pin.accepted,
        accepted_by=row.accepted_by,
        accepted_at=None if row.accepted_at is None else moment(row.accepted_at),
        seen_at=moment(row.seen_at),
    )


def _words(it: Offered) -> dict[str, Any]:
    return it.model_dump(mode="json", exclude={"name", "fault"})


def differences(before: Any, after: Any, path: str = "") -> list[FieldChange]:
    """What differs between two JSON values, by JSON pointers; the first hundred."""
    if before == after:
        return []
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [FieldChange(path=path, before=before, after=after)]
    found: list[FieldChange] = []
    for key in sorted({*before, *after}):
        escaped = key.replace("~", "~0").replace("/", "~1")
        found += differences(before.get(key), after.get(key), f"{path}/{escaped}")
    return found[:CHANGES_MAX]


def _require_usable(pin: Pin, given: AcceptInput) -> None:
    look = _look(given)
    about: dict[str, Any] = {"namespace": given.namespace, "name": given.name, "tool": given.tool}
    if pin.gone or pin.digest != given.digest:
        detail = f"{given.tool} is described otherwise by now" if not pin.gone else f"{given.tool} is not offered now"
        raise refuse("TOOL_CHANGED", detail, field="/digest", next=[look], **about, seen=pin.digest, given=given.digest)
    if pin.seen.fault:
        detail = f"{given.tool} can not be used: {pin.seen.fault}"
        raise refuse("TOOL_NOT_ACCEPTED", detail, field="/tool", next=[look], **about, fault=pin.seen.fault)


def _roles(pin: Pin, given: AcceptInput) -> dict[str, Role]:
    """The role of every argument: as given, as confirmed before, or as guessed."""
    by_schema = guessed(pin.seen.input_schema)
    for name in given.roles or {}:
        if name not in by_schema:
            detail = f"{given.tool} has no argument {name[:100]}"
            known = sorted(by_schema)[:CHANGES_MAX]
            raise refuse("INVALID_VALUE", detail, field="/roles", argument=name[:100], tool=given.tool, known=known)
    before = {name: role for name, role in pin.roles.items() if name in by_schema}
    return {**by_schema, **before, **(given.roles or {})}


def _is_so(pin: Pin, roles: dict[str, Role]) -> bool:
    return pin.state == "accepted" and pin.roles == roles


def _look(given: ToolsInput | AcceptInput) -> Next:
    where = {"namespace": given.namespace, "name": given.name}
    return Next(operation="connections.tools", arguments=where, why="shows the tools as they are now")


def _no_tool(given: AcceptInput) -> Refusal:
    detail = f"nothing is known of a tool {given.tool} of {given.namespace}/{given.name}"
    about: dict[str, Any] = {"namespace": given.namespace, "name": given.name, "tool": given.tool}
    return refuse("NOT_FOUND", detail, field="/tool", next=[_look(given)], kind="Tool", **about)
