"""What the clients of all providers share: time limits that span no yield, and the wish to be asked again later."""

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import httpx2

from knowledge.llm.base import ModelConfig
from ragsite.core.background import in_background

T = TypeVar("T")
CONNECT_SECONDS = 5.0
# An estimate for text whose tokens the provider had no chance to report. In bytes, as a character of Chinese or Thai has
# three, and costs about as much as a short word.
BYTES_PER_TOKEN = 4
_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
# Beside its client's own errors, what calling a provider raises, and reading an answer without the protocol's shape.
FAILURES = (
    httpx2.HTTPError,
    httpx2.StreamError,
    TimeoutError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)
# How long the end of a body is waited for whose answer is over.
END_SECONDS = 1.0
_FIRST_HALF = "\ud800", "\udbff"  # of characters beyond the first plane, in UTF-16


def size_of(*texts: str) -> int:
    """Bytes of UTF-8. Half of a character, as a stream may bring it, has some, too."""
    return sum(len(text.encode(errors="surrogatepass")) for text in texts)


class Cleaner:
    """Text as it comes from a provider, without what neither a log nor a database takes: NUL, and halves of characters."""

    def __init__(self) -> None:
        self._half = ""

    def take(self, text: str) -> str:
        """The text so far; the half of a character at its end waits for the other."""
        text, self._half = self._half + text, ""
        if text and _FIRST_HALF[0] <= text[-1] <= _FIRST_HALF[1]:
            text, self._half = text[:-1], text[-1]
        return clean_words(text)


def clean_words(text: str) -> str:
    """The text without NUL; halves of characters that belong together are one, others are shown as unknown."""
    text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def estimate_tokens(size: int) -> int:
    """Of so many bytes."""
    return -(-size // BYTES_PER_TOKEN)


def may_have_arrived(error: Exception) -> bool:
    """Whether a call that failed so may have reached its provider, who then wants to be paid for it."""
    return not isinstance(error, _NOT_SENT) and not isinstance(error.__cause__, _NOT_SENT)


def client_timeout(config: ModelConfig) -> httpx2.Timeout:
    # A floor below our own deadlines, for the case that a read blocks without being cancelled.
    return httpx2.Timeout(config.call_seconds, connect=min(CONNECT_SECONDS, config.first_byte_seconds))


def until(when: float) -> asyncio.Timeout:
    """A timeout at `when` on the monotonic clock; never spans a yield, which would cancel the consumer."""
    return asyncio.timeout(max(0.0, when - time.monotonic()))


async def next_event(events: AsyncIterator[T], deadline: float) -> T | None:
    """The next event, or None at the end. Raises TimeoutError at the deadline."""
    async with until(deadline):
        return await anext(events, None)


def end_body(parts: AsyncIterator[Any], close: Callable[[], Awaitable[None]]) -> None:
    """Reads what is left of a body that has said everything, while nobody waits: only then its connection is used again,
    and the next question need not make one, with TLS, of its own."""
    in_background(_end_body(parts, close))


async def _end_body(parts: AsyncIterator[Any], close: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            async for _ in parts:
                pass
    except Exception:  # noqa: S110  the answer is whole: what happens to the connection after it is nobody's concern
        pass
    finally:
        await close()


def parse_retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `retry-after` as seconds or as an HTTP date (RFC 9110, 10.2.3)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        date = email.utils.parsedate_tz(headers.get("retry-after", ""))
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
