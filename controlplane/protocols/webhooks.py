"""Signed webhooks: what is posted to a connection that has one, by the specification of standard-webhooks.

The signature is the credential, checked before anything else is looked at: it covers the id, the time and the body.
The library allows five minutes between its time and ours; within them, and for long after, an id is taken once. The
signing secret is the connection's, so calls out over a connection with a webhook carry none.
"""

import base64
import re

from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from controlplane.protocols.envelopes import BATCHED, Arrived, from_batch, from_http, is_batch
from controlplane.resources.problems import refuse
from schemas.http_connection import HttpConnection
from schemas.ports import Arrival, Link, Parse, Posted

TYPE = "steward.webhook"
KEY_BYTES_MIN = 24  # as the specification asks of a secret
_ID = re.compile(r"[!-~]{1,200}")


class Webhooks:
    """Hears what is posted to connections of protocol `http`."""

    protocol = "http"

    def listens(self, link: Link) -> bool:
        return isinstance(link.spec, HttpConnection) and link.spec.options.webhook is not None

    def hears(self, link: Link, posted: Posted, parse: Parse) -> Arrival | list[Arrival]:
        """The event that it is, or the events of a batch, each known by its own source and id; raises UNAUTHENTICATED
        where the signature is none, NOT_SET_UP without a secret."""
        assert isinstance(link.spec, HttpConnection)
        wanted = link.spec.options.webhook
        assert wanted is not None
        key = _key(link)
        given = {it: posted.headers.get(it, "") for it in ("webhook-id", "webhook-timestamp", "webhook-signature")}
        try:
            Webhook(key).verify(posted.body, given, json_parse=False)
        except (WebhookVerificationError, EmptyWebhookSecretError, ValueError) as error:
            raise refuse("UNAUTHENTICATED", f"the signature is not taken: {error}") from None
        if not _ID.fullmatch(given["webhook-id"]):
            raise refuse("INVALID_VALUE", "webhook-id has 1 to 200 printable characters", field="/webhook-id")
        if is_batch(posted.headers):
            batch = from_batch(posted.headers, posted.body, parse)
            return [_arrival(wanted.channel, f"{BATCHED} {unique}", it) for unique, it in batch]
        event = from_http(posted.headers, posted.body, parse)
        return _arrival(wanted.channel, given["webhook-id"], event)


def _arrival(channel: str, unique: str, event: Arrived) -> Arrival:
    return Arrival(
        channel=channel,
        unique=unique,
        data=event.data,
        type=event.type or TYPE,
        origin=event.origin,
        partitionkey=event.partitionkey,
        traceparent=event.traceparent,
    )


def _key(link: Link) -> bytes:
    """The signing key: base64, after `whsec_` if that is there."""
    try:
        key = base64.b64decode(link.secret.removeprefix("whsec_").rstrip("=") + "==", validate=False)
        whole = base64.b64encode(key).rstrip(b"=") == link.secret.removeprefix("whsec_").rstrip("=").encode()
    except ValueError:
        key, whole = b"", False
    if not whole or len(key) < KEY_BYTES_MIN:
        detail = f"the secret of connection {link.name} is no base64 of {KEY_BYTES_MIN} bytes or more"
        raise refuse("NOT_SET_UP", detail, connection=link.name, bytes_min=KEY_BYTES_MIN)
    return key
