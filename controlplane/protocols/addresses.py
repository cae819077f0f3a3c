"""Which addresses are inside: loopback, private, link-local, shared, metadata, and whatever else is not public.

By IANA's registries of special-purpose addresses (RFC 6890 and its updates), of which `ipaddress` knows those of its
own day. Of IPv6 only the global unicast block is public, and the well-known prefix of NAT64. An address that carries
another one in it (mapped, translated, tunnelled) leads to both, and is inside when either is.
"""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from controlplane.resources.problems import refuse

ADDRESSES_MAX = 4

_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last 32 bits
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of an interface's identifier; the lower one is an IPv4 address
_NOT_PUBLIC_4 = tuple(
    IPv4Network(it)
    for it in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared: CGNAT, and metadata services of some clouds
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


async def checked(host: str, port: int, connection: str, *, allow_private: bool) -> list[str]:
    """The first addresses of a name, of which none is inside unless that is allowed.

    Raises OSError when it has none, and a Refusal FORBIDDEN_ADDRESS when one may not be reached.
    """
    listed = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = list(dict.fromkeys(str(it[4][0]) for it in listed))
    if not allow_private and (inside := [it for it in found if private(it)]):
        detail = f"{host} is {inside[0]}, which is not a public address, and {connection} allows no other"
        raise refuse("FORBIDDEN_ADDRESS", detail, host=host, address=inside[0], connection=connection)
    return found[:ADDRESSES_MAX]
