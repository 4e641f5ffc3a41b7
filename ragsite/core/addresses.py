"""Addresses of those who ask, in the one spelling in which they are counted, compared and stored."""

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4096)
def read_peer(text: str) -> str | None:
    """An IP address as PostgreSQL takes it and an IPv4 one is always written; ``None`` for what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(address)))  # without its zone (“fe80::1%eth0”)
    return str(address)


def read_proxies(text: str) -> list[str]:
    """``10.0.0.7, 10.1.0.0/16, ::1``, each an address or a network.

    Raises:
        ValueError: names the entry that is neither.
    """
    found = []
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        try:
            network = ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError(
                f"“{entry}” is neither an address nor a network, for instance 127.0.0.1, 10.1.0.0/16"
            ) from None
        found.append(str(network if "/" in entry else network.network_address))
    return found
