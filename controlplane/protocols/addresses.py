"""Which addresses are inside: loopback, private, link-local, shared, metadata, and whatever else is not public.

By IANA's registries of special-purpose addresses (RFC 6890 and its updates), of which `ipaddress` knows those of its
own day. Of IPv6 only the global unicast block is public, and the well-known prefix of NAT64. An address that carries
another one in it (mapped, translated, tunnelled) leads to both, and is inside when either is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from controlplane.protocols.lookups import LOOKUPS
from controlplane.resources.problems import refuse

ADDRESSES_MAX = 4
LOOKUP_PART = 0.5  # of the connection's timeout

_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last 32 bits
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of an interface's identifier; the lower one is an IPv4 address
_NOT_PUBLIC_4 = tuple(
    IPv4Network(it)
    for it in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared: CGNAT, and metadata services of some clouds
        "168.63.129.16/32",  # the platform of Azure, which speaks to its machines from a public address
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",
        "240.0.0.0/4",
    )
)
_NOT_PUBLIC_6 = tuple(IPv6Network(it) for it in ("2001::/23", "2001:db8::/32", "3fff::/20"))


def private(text: str) -> bool:
    """Whether an address is not a public one, also when it hides in another; raises ValueError for what is none."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return _inside_4(address)
    return _inside_6(address) or any(_inside_4(it) for it in _within(address))


def _inside_4(address: IPv4Address) -> bool:
    return not address.is_global or address.is_multicast or any(address in it for it in _NOT_PUBLIC_4)


def _inside_6(address: IPv6Address) -> bool:
    if address in _NAT64:
        return False  # what is in it decides
    return address not in _UNICAST or not address.is_global or any(address in it for it in _NOT_PUBLIC_6)


def _within(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to."""
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(low)
    if address.sixtofour is not None:
        yield address.sixtofour


@dataclass(frozen=True)
class Asker:
    """The connection that an address is for: which one, whether it may lead inside, and how long a call of it may take.

    What is not known in a part of that time is not reached, which is known before anybody's patience ends.
    """

    connection: str
    namespace: str
    allow_private: bool
    timeout_s: float


async def allowed(host: str | None, port: int, asker: Asker) -> list[str]:
    """The addresses of a name, of which none is inside unless that is allowed.

    Raises OSError when it has none, and a Refusal FORBIDDEN_ADDRESS when one may not be reached.
    """
    whose = asker.namespace, asker.connection
    found = await LOOKUPS.addresses(host, port, whose, asker.timeout_s * LOOKUP_PART)
    if not asker.allow_private and (inside := [it for it in found if private(it)]):
        detail = f"{host} is {inside[0]}, which is not a public address, and {asker.connection} allows no other"
        raise refuse("FORBIDDEN_ADDRESS", detail, host=host, address=inside[0], connection=asker.connection)
    return found


async def checked(host: str | None, port: int, asker: Asker) -> list[str]:
    """The first of them."""
    return (await allowed(host, port, asker))[:ADDRESSES_MAX]
