"""Which addresses of the internet are public, and what the others are for.

An own list, and not what the standard library calls global: that differs from one Python to the next, and lets
through what leads somewhere else, such as the ranges that carry an IPv4 address inside an IPv6 one.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

LOOPBACK: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

# Source: the special-purpose address registries of IANA.
_V4: Final = (
    ("loopback", "127.0.0.0/8"),
    ("unspecified", "0.0.0.0/8"),
    ("private", "10.0.0.0/8"),
    ("private", "172.16.0.0/12"),
    ("private", "192.168.0.0/16"),
    ("private", "100.64.0.0/10"),  # behind a carrier's translation; clouds keep services of theirs there
    ("link-local", "169.254.0.0/16"),  # where clouds answer for a machine's credentials
    ("reserved", "192.0.0.0/24"),
    ("reserved", "192.0.2.0/24"),
    ("reserved", "192.88.99.0/24"),
    ("reserved", "198.18.0.0/15"),
    ("reserved", "198.51.100.0/24"),
    ("reserved", "203.0.113.0/24"),
    ("multicast", "224.0.0.0/4"),
    ("reserved", "240.0.0.0/4"),
)
_V6: Final = (
    ("loopback", "::1/128"),
    ("unspecified", "::/128"),
    ("private", "fc00::/7"),
    ("link-local", "fe80::/10"),
    ("private", "fec0::/10"),
    ("multicast", "ff00::/8"),
    ("reserved", "2001::/23"),  # protocols of their own, tunnels to IPv4 among them
    ("reserved", "2001:db8::/32"),
    ("reserved", "2002::/16"),  # a tunnel to IPv4
    ("reserved", "3fff::/20"),
)
_BLOCKED_V4: Final = tuple((kind, IPv4Network(network)) for kind, network in _V4)
_BLOCKED_V6: Final = tuple((kind, IPv6Network(network)) for kind, network in _V6)
_UNICAST_V6: Final = IPv6Network("2000::/3")
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")


def blocked(text: str, *, allowed: Sequence[Network]) -> str | None:
    """Give the kind of range that keeps an address from being reached ("loopback", "private" ...), or None.

    `allowed` are networks that may be reached although they are not public. An IPv4 address that is written as an
    IPv6 one counts as what it leads to.
    Raises: ValueError when it is no address.
    """
    address = _led_to(ip_address(text.partition("%")[0]))
    if any(address.version == network.version and address in network for network in allowed):
        return None
    if isinstance(address, IPv4Address):
        return next((kind for kind, network in _BLOCKED_V4 if address in network), None)
    kind = next((kind for kind, network in _BLOCKED_V6 if address in network), None)
    return kind or (None if address in _UNICAST_V6 else "reserved")


def _led_to(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _TRANSLATED:
            return IPv4Address(address.packed[-4:])
    return address
