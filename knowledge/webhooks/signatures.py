"""Signatures of webhooks: Standard Webhooks (GitLab signs so too), GitHub's, and GitLab's older secret token.

Pure: nothing here touches the database. https://www.standardwebhooks.com; of GitHub ``X-Hub-Signature-256``.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PREFIX = "whsec_"
TOLERANCE_SECONDS = 300
_MAX_SIGNATURES = 10


@dataclass(frozen=True)
class Signed:
    """A request whose signature holds.

    Attributes:
        scheme: ``standard``, ``github`` or ``gitlab``.
        once: what must not be seen twice.
    """

    scheme: str
    once: str


def new_secret() -> str:
    """256 random bits as Standard Webhooks and GitLab write them."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX))


def sign(*, secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """``v1,<base64>`` of a message.

    Args:
        timestamp: seconds since 1970.
    """
    content = b".".join([message_id.encode(), str(timestamp).encode(), body])
    return "v1," + base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether a request says that it is signed, in a way that is known here."""
    return any(headers.get(name) for name in ("webhook-signature", "x-hub-signature-256", "x-gitlab-token"))


def verify(*, secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float) -> Signed | None:
    """Who signed a request, or ``None``.

    The strongest way that it names counts; a request with a false signature is not saved by a true token.

    Args:
        secrets: any of them may have signed; during a rotation there are two.
        headers: names in lower case.
        body: as it was sent.
        now: seconds since 1970.
    """
    if "webhook-signature" in headers:
        return _verify_standard(secrets, headers, body, now)
    if "x-hub-signature-256" in headers:
        given = headers["x-hub-signature-256"]
        for secret in secrets:
            expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            if _same(expected, given):
                return Signed("github", f"github:{given}")
        return None
    if any(_same(secret, headers.get("x-gitlab-token", "")) for secret in secrets):
        event = headers.get("x-gitlab-event", "")
        return Signed("gitlab", f"gitlab:{event}:{hashlib.sha256(body).hexdigest()}")
    return None


def _verify_standard(
    secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float
) -> Signed | None:
    message_id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or len(message_id) > 256 or not (sent.isascii() and sent.isdigit() and len(sent) <= 12):
        return None
    if abs(now - int(sent)) > TOLERANCE_SECONDS:
        return None
    given = [one for one in headers["webhook-signature"].split() if one.startswith("v1,")][:_MAX_SIGNATURES]
    held = False
    for secret in secrets:
        try:
            expected = sign(secret=secret, message_id=message_id, timestamp=int(sent), body=body)
        except (binascii.Error, ValueError, UnicodeEncodeError):
            continue
        for one in given:
            held |= _same(expected, one)
    return Signed("standard", f"standard:{message_id}") if held else None


def _same(expected: str, given: str) -> bool:
    # Bytes: compare_digest refuses text beyond ASCII, which anybody may send.
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))
