"""Where calls out may not lead: every way to write an inner address, before and after the name is resolved."""

import socket
from typing import Any

import pytest

from controlplane.protocols import addresses
from controlplane.protocols.addresses import private
from controlplane.protocols.http_client import answer
from schemas.http import HttpRequest
from schemas.problem import Refusal
from tests.gate.counting import counting
from tests.gate.test_redirects import OWN, get, leads, link

INNER = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1", "224.0.0.1",
    "168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110",
    "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "2001::1",
    "2001:0:7f00:1::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1",
    "2001:db8::1", "3fff::1", "5f00::1", "2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:192.168.0.1", "4000::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "168.63.129.15", "172.32.0.1", "192.169.0.1",
    "2a00:1450:4001::1",
    "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1", "2a00:1450::5efe:8.8.8.8"]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
def test_an_inner_address_is_known_in_every_form(address: str) -> None:
    """Also where it is mapped, translated, tunnelled, or not assigned to anybody."""
    assert private(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_public(address: str) -> None:
    """Also where it is translated."""
    assert not private(address)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "localhost", "0"])
async def test_however_the_host_is_written_it_is_looked_up_before_it_is_judged(host: str) -> None:
    """What the resolver makes of it counts."""
    async with counting() as far:
        with pytest.raises(Refusal) as refused:
            await get(link(f"http://{host}:{far.port}"))
        assert refused.value.problem.reason == "FORBIDDEN_ADDRESS"
        assert far.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "location",
    ["http://[::1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://2130706433:{port}/", "//127.0.0.1:{port}/"],
)
async def test_a_redirect_is_judged_like_the_first_request(monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    """Whatever form its location has."""
    judged = addresses.private
    monkeypatch.setattr(addresses, "private", lambda it: it != "127.0.0.2" and judged(it))  # that one is public here
    async with counting(host="127.0.0.2") as far, counting() as inner:
        leads(far, location.format(port=inner.port))
        with pytest.raises(Refusal) as refused:
            await get(link(far.endpoint, redirects_max=3))
        assert refused.value.problem.reason == "FORBIDDEN_ADDRESS"
        assert (len(far.asked), inner.asked) == (1, [])


class Resolver:
    """A resolver of the tests, in place of the outside's: it answers one name otherwise each time."""

    def __init__(self, name: str, *answers: list[str]) -> None:
        self.real, self.name, self.answers, self.asked = socket.getaddrinfo, name, list(answers), 0

    def __call__(self, host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host not in (self.name, self.name.encode()):
            return self.real(host, port, *rest, **more)
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (it, port)) for it in found]


@pytest.mark.anyio
async def test_a_name_that_is_bound_anew_leads_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resolved once for a request, and the address that was judged is the one that is connected to."""
    resolver = Resolver("rebind.test", ["127.0.0.2"], ["127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(addresses, "private", lambda it: it == "127.0.0.1")
    async with counting(host="127.0.0.2") as far:
        there = link(f"http://rebind.test:{far.port}")
        assert (await answer(HttpRequest(), there, {}, OWN))["status"] == 200
        assert resolver.asked == 1
        assert far.asked[0].headers["host"] == f"rebind.test:{far.port}"
        with pytest.raises(Refusal):
            await answer(HttpRequest(), there, {}, OWN)
        assert len(far.asked) == 1


@pytest.mark.anyio
async def test_a_name_with_one_inner_address_is_refused_wholly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its others may be public: whoever owns such a name may answer otherwise the next time."""
    monkeypatch.setattr(socket, "getaddrinfo", Resolver("mixed.test", ["8.8.8.8", "169.254.169.254"]))
    with pytest.raises(Refusal) as refused:
        await answer(HttpRequest(), link("http://mixed.test"), {}, OWN)
    assert refused.value.problem.metadata["address"] == "169.254.169.254"
