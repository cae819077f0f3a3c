"""Names that are looked up: what a resolver does not answer is waited for by who asked it, and by nobody else."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.protocols.http_client import answer
from controlplane.protocols.lookups import Lookups
from controlplane.protocols.sql_engine import Databases
from schemas.connection import connection_spec
from schemas.http import HttpRequest
from schemas.ports import Link, Unreached
from tests.gate.counting import counting
from tests.gate.running import true
from tests.gate.test_redirects import OPEN, OWN

pytestmark = pytest.mark.anyio


class Silent:
    """A fake of the outside resolver: it says nothing of names under `silent.test` until it is let, and all else is
    looked up as it is."""

    def __init__(self) -> None:
        self.real, self.asked, self.lets = socket.getaddrinfo, Counter[str](), threading.Event()

    def __call__(self, host: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith("silent.test"):
            return self.real(host, *rest, **more)
        self.asked[host] += 1
        self.lets.wait(60)
        return self.real("127.0.0.1", *rest, **more)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    found = Silent()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield found
    found.lets.set()
    for it in threading.enumerate():
        if it.name == "lookup":
            it.join(10)


def named(name: str, endpoint: str, timeout_s: float = 60, protocol: str = "http") -> Link:
    given = {"protocol": protocol, "endpoint": endpoint, "limits": {"timeout_s": timeout_s}, "options": OPEN}
    return Link(name, connection_spec(given), namespace="default")


def http(there: Link) -> Any:
    return answer(HttpRequest(), there, {}, OWN)


async def test_a_silent_resolver_holds_up_nobody_else(silent: Silent) -> None:
    """However many calls of connections wait for it: another one's are answered, and files are read."""
    async with counting() as far:
        calls = [http(named(f"slow{n}", f"http://it{n % 4}.silent.test")) for n in range(40)]
        waiting = [asyncio.create_task(it) for it in calls]
        await true(lambda: len(silent.asked) == 4)
        async with asyncio.timeout(20):
            assert (await http(named("other", f"http://localhost:{far.port}")))["status"] == 200
            assert await asyncio.to_thread(lambda: 1) == 1
        assert set(silent.asked.values()) == {1}, "who asks for the same name shares what is under way"
        silent.lets.set()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_connection_has_few_lookups_at_once(silent: Silent) -> None:
    """Whatever names redirects lead it to; what nobody waits for any more is not begun."""
    lookups = Lookups(all_max=3, each_max=2)

    def asked(n: int, whose: str) -> "asyncio.Task[list[str]]":
        return asyncio.create_task(lookups.addresses(f"{whose}{n}.silent.test", 80, whose, 60))

    greedy = [asked(n, "a") for n in range(5)]
    await true(lambda: len(silent.asked) == 2)
    other = asked(0, "b")
    await true(lambda: len(silent.asked) == 3)
    assert silent.asked["b0.silent.test"] == 1
    greedy[4].cancel()
    await asyncio.wait(greedy[4:])
    silent.lets.set()
    assert await asyncio.gather(*greedy[:4], other) == [["127.0.0.1"]] * 5
    assert "a4.silent.test" not in silent.asked
    await true(lambda: not (lookups._begun or lookups._waiting))
    assert +lookups._each == {}


async def test_what_is_not_looked_up_in_time_was_not_reached(silent: Silent) -> None:
    """It is known that nothing was sent: no doubt is held, over HTTP and SQL alike."""
    async with asyncio.timeout(20):
        with pytest.raises(Unreached, match="could not be looked up within"):
            await http(named("slow", "http://it.silent.test", 0.2))
        with pytest.raises(Unreached, match="could not be looked up within"):
            await Databases([]).of(named("far", "postgresql://it.silent.test/shop", 0.2, "sql"), writes=False)


async def test_what_is_no_name_leads_nowhere() -> None:
    """As a redirect may say it; it is told as of a name without an address."""
    for odd in ("a" * 70 + ".test", "a..test", "absent.invalid"):
        with pytest.raises(OSError):  # noqa: PT011 - as the resolver says it
            await Lookups().addresses(odd, 80, "a", 60)
