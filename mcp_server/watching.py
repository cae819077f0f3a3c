"""MCP resources and subscriptions, by the same operations as the tools.

Reading a `steward://` address is getting the resource. A subscription is a long read of the
feedback log under the subscriber's own rights: so nobody is told of what they may not see, and the
stream ends when the token or the plane does.
"""

from typing import Any, cast

import mcp_types as types
from mcp import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY

from controlplane.feedback.places import Places
from mcp_server.callers import Caller, Context, principal_of
from mcp_server.intents import NOUNS
from mcp_server.uris import FEEDBACK, FEEDBACK_RESOURCE, TEMPLATES, listed, parse, uri_of
from schemas.feedback import EventsFound
from schemas.principal import Principal
from schemas.problem import Refusal
from schemas.records import Brief

EVENTS_SHOWN = 100
POLL_S = 20.0
LIST_CHANGES = frozenset({"resource.created", "resource.deleted"})


class Watching:
    """Handlers of `resources/*` and `subscriptions/listen`."""

    def __init__(self, call: Caller, read: Caller, readers: Places) -> None:
        """`read` waits for a subscriber, who is counted as a reader and not as a call."""
        self._call = call
        self._read = read
        self._readers = readers

    async def list_resources(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        """Kind after kind, page after page; a cursor is `kind page`."""
        kinds = list(NOUNS)
        kind, _, page = ((params.cursor if params else None) or kinds[0]).partition(" ")
        if kind not in NOUNS:
            raise MCPError(types.INVALID_PARAMS, "the cursor is not one of ours")
        given = {"page": page} if page else {}
        output: Any = await self._called(principal_of(context), f"{NOUNS[kind]}.list", given)
        after = kinds[kinds.index(kind) + 1 :]
        cursor = f"{kind} {output.next_page}" if output.next_page else (after[0] if after else None)
        first = [FEEDBACK_RESOURCE] if kind == kinds[0] and not page else []
        return types.ListResourcesResult(resources=[*first, *map(listed, output.items)], next_cursor=cursor)

    async def list_templates(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=TEMPLATES)

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri, principal = str(params.uri), principal_of(context)
        address = parse(uri)
        if address is not None:
            given = {"namespace": address.namespace, "name": address.name}
            output: Any = await self._called(principal, f"{NOUNS[address.kind]}.get", given, uri=uri)
        elif uri == FEEDBACK:
            output = await self._called(principal, "feedback.read", {"limit": EVENTS_SHOWN}, uri=uri)
        else:
            raise MCPError(types.INVALID_PARAMS, "there is no such resource", {"uri": uri})
        text = types.TextResourceContents(uri=uri, mime_type="application/json", text=output.model_dump_json())
        return types.ReadResourceResult(contents=[text])

    async def listen(
        self, context: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Tell of resources that changed, until the client goes or may no longer ask."""
        if context.request_id is None:
            raise MCPError(types.INVALID_REQUEST, "subscriptions/listen requires a request id")
        asked = params.notifications
        wanted = types.SubscriptionFilter(
            resource_subscriptions=sorted({str(uri) for uri in asked.resource_subscriptions or ()}) or None,
            resources_list_changed=asked.resources_list_changed or None,
        )
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: context.request_id}
        try:
            with self._readers.held(principal_of(context).identity):
                await self._tell(context, wanted, meta)
        except Refusal as refusal:
            raise _told(refusal) from None
        return types.SubscriptionsListenResult(_meta=meta)

    async def _tell(self, context: Context, wanted: types.SubscriptionFilter, meta: dict[str, Any]) -> None:
        principal = principal_of(context)
        brief = cast(Brief, await self._called(principal, "system.brief", {}))
        acknowledged = types.SubscriptionsAcknowledgedNotification(
            params=types.SubscriptionsAcknowledgedNotificationParams(notifications=wanted, _meta=meta)
        )
        await context.session.send_notification(acknowledged, related_request_id=context.request_id)
        cursor = brief.cursor
        while True:
            principal = await _still(context)
            page = await self._page(principal, cursor)
            if page is None:
                return
            cursor = page.cursor
            for told in notifications(page, wanted, meta):
                await context.session.send_notification(told, related_request_id=context.request_id)

    async def _page(self, principal: Principal, cursor: str) -> EventsFound | None:
        try:
            output = await self._read(principal, "feedback.read", {"after": cursor, "wait_s": POLL_S})
        except Refusal:
            return None
        return cast(EventsFound, output)

    async def _called(self, principal: Principal, operation: str, given: dict[str, Any], **more: str) -> Any:
        try:
            return await self._call(principal, operation, given)
        except Refusal as refusal:
            raise _told(refusal, **more) from None


def _told(refusal: Refusal, **more: str) -> MCPError:
    found = refusal.problem
    return MCPError(types.INVALID_PARAMS, found.detail, found.model_dump(mode="json") | more)


async def _still(context: Context) -> Principal:
    """The principal, its token checked again."""
    assert context.request is not None
    try:
        return cast(Principal, await context.request.scope["state"]["authenticate"]())
    except Refusal as refusal:
        raise MCPError(types.INVALID_REQUEST, refusal.problem.detail) from None


def touched(page: EventsFound) -> frozenset[str]:
    """The addresses that the events of a page speak of."""
    subjects = {uri_of(it.subject.kind, it.subject.namespace, it.subject.name) for it in page.events}
    return frozenset(subjects | ({FEEDBACK} if page.events else set()))


def notifications(
    page: EventsFound, wanted: types.SubscriptionFilter, meta: dict[str, Any]
) -> list[types.ResourceListChangedNotification | types.ResourceUpdatedNotification]:
    """What a subscriber is told of a page, of what it asked for."""
    found: list[types.ResourceListChangedNotification | types.ResourceUpdatedNotification] = []
    if wanted.resources_list_changed and any(it.type in LIST_CHANGES for it in page.events):
        found.append(types.ResourceListChangedNotification(params=types.NotificationParams(_meta=meta)))
    for uri in sorted(touched(page) & set(wanted.resource_subscriptions or ())):
        params = types.ResourceUpdatedNotificationParams(uri=uri, _meta=meta)
        found.append(types.ResourceUpdatedNotification(params=params))
    return found
