"""Protocol `http`: requests, the operations of OpenAPI documents, and signed webhooks."""

from collections.abc import Iterable

from controlplane.protocols.http import HttpEffector
from controlplane.protocols.openapi import document_fault
from controlplane.protocols.operations import Operations
from controlplane.protocols.webhooks import Webhooks
from schemas.endpoint import ConnectionSpec
from schemas.http_connection import HttpConnection
from schemas.protocols import Around, Declaration, Fault, Performer


def _performers(_: Around) -> Iterable[Performer]:
    sender = HttpEffector()
    return sender, Operations(sender)


def _fault(spec: ConnectionSpec) -> Fault | None:
    assert isinstance(spec, HttpConnection)
    if spec.options.openapi is None or (why := document_fault(spec.options.openapi)) is None:
        return None
    return Fault("/options/openapi", f"no effects can be made of the document: {why}")


PROTOCOL = Declaration("http", _performers, fault=_fault, listener=Webhooks())
