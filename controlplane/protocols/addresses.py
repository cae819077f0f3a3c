"""Which addresses are inside: loopback, private, link-local, metadata, and whatever else is not public."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from controlplane.resources.problems import refuse

ADDRESSES_MAX = 4

_NAT64 = IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last 32 bits


def private(text: str) -> bool:
    """Whether an address is not a public one, also when it hides in another."""
    address = ip_address(text.partition("%")[0])
    inner = _inner(address) if isinstance(address, IPv6Address) else None
    return any(not it.is_global or it.is_multicast for it in (address, inner) if it is not None)


def _inner(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


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
