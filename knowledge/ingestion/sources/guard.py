"""Where the server may go on behalf of a tenant. Every connection that a source or a callback makes passes here.

A tenant's admin names addresses, and pages that they do not own name more; our own network must not be reachable through
them. A host is looked up once, each of its addresses is checked, and the connection goes to the very address that was
checked, so that a name that changes its mind between the look and the step (DNS rebinding) gains nothing. The check sits
in the transport: a redirect, a mistyped number or a parser's quirk cannot go round it.

Hosts inside the network are allowed by the operator, by name or network (``RAGSITE_SOURCE_ALLOWED_HOSTS``).
"""

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpcore2
import httpx2

from knowledge.ingestion.sources.base import SourceError
from ragsite.core.config import AllowedHosts, config

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

WEB_PORTS = frozenset({80, 443, 8080, 8443})
_TRIED_ADDRESSES = 3

# IANA's special-purpose registry: not the public internet, or not to be reached as a host.
_SPECIAL_V4 = [
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
# Teredo and its kin, documentation, 6to4 (a relay would unwrap an address of ours).
_SPECIAL_V6 = [
    ipaddress.IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
]  # fmt: skip
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
# Where clouds hand out credentials, and what is no host at all: not even an allowed name or a wide network opens these.
_NEVER = [
    ipaddress.ip_network(net)
    for net in (
        "169.254.0.0/16", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4",
        "2001::/32", "2002::/16", "fe80::/10", "fd00:ec2::254", "fd20:ce::254", "ff00::/8", "::/128",
    )
]  # fmt: skip
# What inet_aton, and with it the resolver, takes for a number: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


class Refused(SourceError):
    """A place where nothing of a tenant's may lead."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, whatever it is wrapped in (v4-mapped, NAT64)."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in net for net in (*_SPECIAL_V4, *_never_of(4)))
    inner = _unwrap(address)
    if inner is not None:
        return is_public(inner)
    return address in _PUBLIC_V6 and not any(address in net for net in _SPECIAL_V6)


def _never_of(version: int) -> Iterator[Any]:
    return (net for net in _NEVER if net.version == version)


def _unwrap(address: Address) -> ipaddress.IPv4Address | None:
    """The v4 address that a v6 one leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _may_connect(host: str, address: Address, allowed: AllowedHosts) -> bool:
    address = _unwrap(address) or address
    named = [net for net in allowed.networks if net.version == address.version and address in net]
    if any(address in net for net in _never_of(address.version)):
        return any(net.num_addresses == 1 for net in named)
    return bool(named) or allowed.allows_name(host) or is_public(address)


def resolve_host(host: str, port: int, *, ports: frozenset[int] = WEB_PORTS) -> tuple[str, ...]:
    """The addresses of a host, looked up once and all of them checked.

    Connect to one of these, never to the name again: it may say something else the next time.

    Args:
        ports: that a public host may be asked at; a host that the operator allowed may be asked at any.

    Raises:
        Refused: an address, the port or the spelling is none that may be gone to.
        SourceError: nobody knows the host.
    """
    name = host.strip("[]").rstrip(".").lower()
    literal = _read_address(name)
    allowed = config().allowed_source_hosts
    found = [literal] if literal is not None else _look_up(name, port)
    inside = allowed.allows_name(name) or all(
        any(net.version == a.version and a in net for net in allowed.networks) for a in found
    )
    if port not in ports and not inside:
        wanted = ", ".join(str(one) for one in sorted(ports))
        raise Refused(f"Port {port} of {name} is none that sources are fetched from ({wanted}).")
    # One that is not public among several that are: somebody is trying.
    if not all(_may_connect(name, address, allowed) for address in found):
        raise Refused(
            f"{name} is not on the public internet. If documents are to be fetched from it, "
            "ask the operator to allow it (RAGSITE_SOURCE_ALLOWED_HOSTS)."
        )
    return tuple(str(address) for address in found)


def _read_address(name: str) -> Address | None:
    """The address that a host's name spells, if it does.

    Raises:
        Refused: no name, one in letters that each program spells out its own way, or a number that is no plain address.
    """
    if not name or len(name) > 253 or any(letter <= " " or letter in "%@/\\\x7f" for letter in name):
        raise Refused("The address names no host.")
    if not name.isascii():
        raise Refused(f"Write {name} as the name system knows it: xn--…")
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise Refused(f"{name} is a number in disguise: write the host's name, or its address plainly.")
    return None


def _look_up(name: str, port: int) -> list[Address]:
    try:
        rows = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceError(
            f"The host {name} is not known: check its spelling, or the server's DNS.", permanent=False
        ) from None
    # A zone ("fe80::1%eth0") belongs to link-local addresses alone, which are refused anyway.
    return list(dict.fromkeys(ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows))


def check_url(url: str, *, ports: frozenset[int] = WEB_PORTS) -> httpx2.URL:
    """A URL that may be asked now: well formed, and its host is one that may be gone to.

    For telling at once what is wrong with an address that somebody types. The connection itself is checked again.

    Raises:
        Refused, SourceError.
    """
    parsed = read_url(url)
    resolve_host(host_of(parsed), _port_of(parsed), ports=ports)
    return parsed


def read_url(url: str) -> httpx2.URL:
    """An http or https URL, parsed by what will also ask it; nothing is looked up.

    Raises:
        Refused: another scheme, a name and password inside, no host.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, TypeError):
        raise Refused("This is no address: write https://host/path.") from None
    if parsed.scheme not in ("http", "https"):
        raise Refused("An address must begin with https:// or http://.")
    if parsed.userinfo:
        raise Refused("An address must not hold a name or password: give them as credentials.")
    _read_address(host_of(parsed))
    return parsed


def host_of(url: httpx2.URL) -> str:
    """The host as it is looked up, in ASCII; ``url.host`` is for people (“faß.de”), and others look up another for it."""
    return url.raw_host.decode("ascii").rstrip(".").lower()


def _port_of(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def origin_of(url: httpx2.URL) -> tuple[str, str, int]:
    """Scheme, host and port: whom a credential is meant for."""
    return url.scheme, host_of(url), _port_of(url)


class _Stream(httpcore2.NetworkStream):
    """A connection that gives up at the deadline of the request under way, however slowly bytes drip."""

    def __init__(self, inner: httpcore2.NetworkStream, deadline: "_Deadline") -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.shorten(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.shorten(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        left = self._deadline.shorten(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Deadline(threading.local):
    at: float = float("inf")

    def shorten(self, timeout: float | None, error: type[Exception]) -> float | None:
        left = self.at - time.monotonic()
        if left <= 0:
            raise error("The whole request took too long.")
        return min(left, timeout) if timeout is not None else (left if left < 1e9 else None)


class _Backend(httpcore2.NetworkBackend):
    """Looks a host up, checks it, and connects to what was checked. TLS still asks for the certificate of the name."""

    def __init__(self, ports: frozenset[int], deadline: _Deadline) -> None:
        self._inner = httpcore2.SyncBackend()
        self._ports, self._deadline = ports, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore2.NetworkStream:
        failed: Exception = httpcore2.ConnectError("no address")
        for address in resolve_host(host, port, ports=self._ports)[:_TRIED_ADDRESSES]:
            left = self._deadline.shorten(timeout, httpcore2.ConnectTimeout)
            try:
                stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
            else:
                return _Stream(stream, self._deadline)
        raise failed

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        raise Refused("Sockets of this machine are no sources.")


@cache
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=True)  # SSL_CERT_FILE: a company's own authority


class GuardedTransport(httpx2.HTTPTransport):
    """httpx's transport, which goes only where the guard lets it. No proxy of the environment is used."""

    def __init__(self, *, ports: frozenset[int] = WEB_PORTS) -> None:
        super().__init__(verify=_certificates(), trust_env=False)
        self.deadline = _Deadline()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=_certificates(),
            max_connections=10,
            max_keepalive_connections=4,
            keepalive_expiry=5.0,
            network_backend=_Backend(ports, self.deadline),
        )
