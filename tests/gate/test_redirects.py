"""Where a request ends up: redirects pass every check again, and TLS names whom it reached."""

import asyncio
from typing import Any

import pytest
import trustme

from controlplane.protocols import addresses, http_client
from controlplane.protocols.http_client import answer
from schemas.connection import connection_spec
from schemas.http import HttpRequest
from schemas.ports import Link, Unreached
from schemas.problem import Refusal
from tests.gate.counting import KEY, Counting, counting

pytestmark = pytest.mark.anyio

OWN = {"Authorization": "Bearer correct horse", KEY: "t:0:0"}
OPEN = {"allow_private": True}


def link(endpoint: str, **options: Any) -> Link:
    given = {"protocol": "http", "endpoint": endpoint, "limits": {"timeout_s": 5}, "options": options}
    return Link("far", connection_spec(given), "correct horse")


async def get(there: Link, method: str = "GET") -> dict[str, Any]:
    return await answer(HttpRequest.model_validate({"method": method, "path": "orders"}), there, {}, OWN)


def leads(far: Counting, location: str) -> None:
    far.status, far.extra = 302, f"Location: {location}\r\n"


async def test_a_redirect_is_followed_without_secret_and_key() -> None:
    """As far as the connection says, for methods that only ask; what is the endpoint's own stays with it."""
    async with counting() as far, counting() as other:
        leads(far, f"{other.endpoint}/elsewhere")
        assert (await get(link(far.endpoint, **OPEN, redirects_max=1)))["status"] == 200
        assert [it.path for it in other.asked] == ["/elsewhere"]
        assert {"authorization", KEY} <= far.asked[0].headers.keys()
        assert not {"authorization", KEY} & other.asked[0].headers.keys()
        assert (await get(link(far.endpoint, **OPEN)))["status"] == 302
        assert (await get(link(far.endpoint, **OPEN, redirects_max=1), "POST"))["status"] == 302
        assert len(other.asked) == 1


async def test_a_redirect_to_an_inner_address_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of each redirect is checked before anything is sent there."""
    monkeypatch.setattr(addresses, "private", lambda it: it == "127.0.0.2")  # the first one counts as public here
    async with counting() as far, counting(host="127.0.0.2") as inner:
        leads(far, f"{inner.endpoint}/latest/meta-data")
        with pytest.raises(Refusal) as refused:
            await get(link(far.endpoint, redirects_max=5))
        assert refused.value.problem.reason == "FORBIDDEN_ADDRESS"
        assert (len(far.asked), inner.asked) == (1, [])


async def test_the_body_of_a_redirect_is_not_read() -> None:
    """It may have no end, and nothing bounds it: only the last answer is read."""
    async with counting() as far, counting() as other:
        far.behave = ["endless"]
        leads(far, f"{other.endpoint}/elsewhere")
        async with asyncio.timeout(20):
            found = await get(link(far.endpoint, **OPEN, redirects_max=1))
        assert found["status"] == 200


async def test_redirects_that_lead_nowhere_have_failed() -> None:
    """In a circle, or to where nobody listens: refused, so that the first request is not sent once more."""
    async with counting() as far:
        leads(far, "/orders")
        with pytest.raises(Refusal, match="more than 2 times"):
            await get(link(far.endpoint, **OPEN, redirects_max=2))
        assert len(far.asked) == 3
        assert all("authorization" in it.headers for it in far.asked), "it is the same origin"
        leads(far, "http://127.0.0.1:1/")
        with pytest.raises(Refusal, match="redirects to where nothing could be sent"):
            await get(link(far.endpoint, **OPEN, redirects_max=2))
        assert len(far.asked) == 4


async def test_tls_is_verified_by_name_at_the_checked_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One who proves the endpoint's name is told everything; one who proves another's, or by a stranger, nothing."""
    trusted, bundle = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    trusted.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    http_client._inner.cache_clear()
    try:
        cases = [(trusted, "localhost", True), (trusted, "elsewhere.test", False), (trustme.CA(), "localhost", False)]
        for authority, name, proves in cases:
            async with counting(tls=_context(authority, name)) as far:
                there = link(f"https://localhost:{far.port}", **OPEN)
                if proves:
                    assert (await get(there))["status"] == 200
                    assert far.asked[0].headers["host"] == f"localhost:{far.port}"
                else:
                    with pytest.raises(Unreached, match="certificate"):
                        await get(there)
                    assert far.asked == []
    finally:
        http_client._inner.cache_clear()


def _context(authority: trustme.CA, name: str) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context
