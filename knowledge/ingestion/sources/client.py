"""Asks places that a tenant named, within bounds, and only where the guard lets it go."""

import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx2

from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.guard import WEB_PORTS, GuardedTransport, origin_of, read_url

USER_AGENT = "ragsite/1 (document indexing)"
MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
_CHUNK = 64 * 1024


class TooLarge(SourceError):
    """An answer above its bound, or one that unpacks to more."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


@dataclass(frozen=True)
class Fetched:
    """An answer, read whole and unpacked.

    Attributes:
        url: what answered, after redirects.
        location: where an answer that was not followed points to, absolute; else empty.
    """

    url: httpx2.URL
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    location: str = ""


class GuardedClient:
    """Asks places that a tenant named: bounded in bytes, seconds and redirects, each of which is checked anew.

    Args:
        authorization: the value of that header; sent to the scheme, host and port of ``owner`` and to nobody else.
    """

    def __init__(
        self,
        *,
        authorization: str = "",
        owner: httpx2.URL | None = None,
        ports: frozenset[int] = WEB_PORTS,
    ) -> None:
        self._transport = GuardedTransport(ports=ports)
        self._stopped, self._ends_at = threading.Event(), float("inf")
        self._authorization = authorization
        self._owner = origin_of(owner) if owner is not None else None
        self._client = httpx2.Client(
            transport=self._transport,
            trust_env=False,
            follow_redirects=False,
            timeout=CONNECT_SECONDS,
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "gzip"},
        )

    def close(self) -> None:
        self._client.close()

    def end_within(self, seconds: float) -> None:
        """All that is asked from now on, pauses included, has so much time together."""
        self._ends_at = time.monotonic() + seconds

    def stop(self) -> None:
        """From another thread: ends a pause at once, and lets no request begin any more."""
        self._stopped.set()

    def pause(self, seconds: float) -> None:
        """
        Raises:
            SourceError: stopped meanwhile, or there is not so much time left; not permanent.
        """
        if time.monotonic() + seconds > self._ends_at:
            raise SourceError(
                "It answers too slowly, or wishes too long pauses, to be looked at while somebody waits: synchronise it.",
                permanent=False,
            )
        if self._stopped.wait(max(0.0, seconds)):
            raise SourceError("Nobody waits for this any more.", permanent=False)

    def request(
        self,
        method: str,
        url: str | httpx2.URL,
        *,
        max_bytes: int,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        follow: Callable[[httpx2.URL], bool] = lambda url: True,
        wants: Callable[[httpx2.URL, Mapping[str, str]], bool] = lambda url, headers: True,
    ) -> Fetched:
        """One answer.

        Args:
            max_bytes: of the body, as sent and unpacked.
            seconds: for all of it, redirects included.
            follow: whether to follow a redirect to this URL; where not, the redirect itself is the answer.
            wants: whether the body of this answer is to be read, by its headers; where not, it is empty.

        Raises:
            Refused: it, or a redirect, leads to where nothing may go.
            TooLarge: the body is larger than ``max_bytes``.
            SourceError: no answer, or none in time; not permanent.
        """
        self.pause(0)
        seconds = min(seconds, self._ends_at - time.monotonic())
        self._transport.deadline.at = time.monotonic() + seconds
        target = read_url(str(url))
        try:
            for _ in range(MAX_REDIRECTS + 1):
                answer = self._ask(method, target, headers or {}, content, max_bytes, wants)
                if not answer.location:
                    return answer
                target = read_url(answer.location)
                if not follow(target):
                    return answer
                if answer.status == 303 and method != "HEAD":
                    method, content = "GET", None
        except httpx2.TimeoutException:
            raise SourceError(
                f"{target.host} did not answer within {max(1, round(seconds))} s.", permanent=False
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise SourceError(
                f"{target.host} could not be asked ({str(error)[:200] or type(error).__name__}).",
                permanent=False,
            ) from None
        finally:
            self._transport.deadline.at = float("inf")
        raise SourceError(f"{target.host} redirects more than {MAX_REDIRECTS} times.", permanent=True)

    def _ask(
        self,
        method: str,
        url: httpx2.URL,
        headers: Mapping[str, str],
        content: bytes | None,
        max_bytes: int,
        wants: Callable[[httpx2.URL, Mapping[str, str]], bool],
    ) -> Fetched:
        sent = dict(headers)
        if self._authorization and origin_of(url) == self._owner:
            sent["Authorization"] = self._authorization
        with self._client.stream(method, url, headers=sent, content=content) as response:
            location = response.headers.get("Location", "") if 300 <= response.status_code < 400 else ""
            wanted = not location and wants(url, response.headers)
            return Fetched(
                url=url,
                status=response.status_code,
                headers=response.headers,
                body=_read_body(response, max_bytes=max_bytes) if wanted else b"",
                location=str(url.join(location)) if location else "",
            )


def _read_body(response: httpx2.Response, *, max_bytes: int) -> bytes:
    """The body, unpacked piece by piece, so that a bomb is put down at the bound."""
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(response, max_bytes)
    packed = response.headers.get("Content-Encoding", "").strip().lower()
    if packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise SourceError(
            f"{response.url.host} packs its answer as “{packed[:40]}”, unasked.", permanent=True
        )
    unpack = zlib.decompressobj(wbits=47) if packed not in ("", "identity") else None
    body, received = bytearray(), 0
    try:
        for piece in response.iter_raw(_CHUNK):
            received += len(piece)
            body += unpack.decompress(piece, max_bytes + 1 - len(body)) if unpack else piece
            if len(body) > max_bytes or received > max_bytes:
                raise _too_large(response, max_bytes)
    except zlib.error:
        raise SourceError(f"{response.url.host} sent what cannot be unpacked.", permanent=True) from None
    if unpack and received and not unpack.eof:
        raise SourceError(f"{response.url.host} broke off in the middle of its answer.", permanent=False)
    return bytes(body)


def _too_large(response: httpx2.Response, max_bytes: int) -> TooLarge:
    return TooLarge(f"{response.url.path[-200:]} is larger than the {max_bytes / 2**20:.1f} MB allowed.")
