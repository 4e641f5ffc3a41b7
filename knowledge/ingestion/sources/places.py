"""Addresses that an admin types for a source, checked while they are there to mend them."""

import ipaddress

import httpx2

from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.guard import WEB_PORTS, check_url, host_of, read_url
from ragsite.core.config import config


def is_allowed_inside(host: str) -> bool:
    """Whether the operator named a host, or its address, as one that documents may be fetched from."""
    allowed, name = config().allowed_source_hosts, host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return allowed.allows_name(name)
    return any(address in net for net in allowed.networks if net.version == address.version)


def read_web_place(url: str, *, ports: frozenset[int] = WEB_PORTS) -> httpx2.URL:
    """An https address where a source may lie; http only where the operator allowed the host.

    A host that cannot be looked up just now passes: it is looked up again before anything is asked.

    Raises:
        SourceError: what is wrong with it, and what to write.
    """
    parsed = read_url(url)
    if parsed.query or parsed.fragment:
        raise SourceError("The address must not hold a “?” or “#”: leave that part out.", permanent=True)
    if parsed.scheme == "http" and not is_allowed_inside(host_of(parsed)):
        raise SourceError(
            "Use https://: over http:// anybody on the way could read and change the documents. For a server inside "
            "your network that has no certificate, ask the operator to allow it (RAGSITE_SOURCE_ALLOWED_HOSTS).",
            permanent=True,
        )
    try:
        check_url(url, ports=ports)
    except SourceError as error:
        if error.permanent:
            raise
    return parsed
