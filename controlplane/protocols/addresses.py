"""Which addresses are inside: loopback, private, link-local, metadata, and whatever else is not public."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

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
