"""Signatures against the reference library and the senders' own published examples."""

import base64
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from knowledge.webhooks.signatures import new_secret, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'


def headers_of(
    *, secret: str = SECRET, body: bytes = BODY, at: int | None = None, **more: str
) -> dict[str, str]:
    sent = int(time.time()) if at is None else at
    signature = sign(secret=secret, message_id="msg_1", timestamp=sent, body=body)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(sent), "webhook-signature": signature} | more


def holds(headers: dict[str, str], *, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)) -> bool:
    return verify(secrets=secrets, headers=headers, body=body, now=time.time()) is not None


def test_we_sign_as_the_specification_says() -> None:
    # Of the specification's own test vector.
    signature = sign(
        secret=SECRET, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=BODY
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_we_and_the_reference_library_believe_each_other() -> None:
    for body in (BODY, b"{}", '{"name": "Zoë"}'.encode()):
        secret = new_secret()
        Webhook(secret).verify(body, headers_of(secret=secret, body=body))
        now = datetime.now(UTC)
        theirs = {
            "webhook-id": "msg_2",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign("msg_2", now, body.decode()),
        }
        assert holds(theirs, body=body, secrets=(secret,))
        with pytest.raises(WebhookVerificationError):
            Webhook(new_secret()).verify(body, headers_of(secret=secret, body=body))


def test_what_was_changed_or_is_old_does_not_hold() -> None:
    assert holds(headers_of())
    assert not holds(headers_of(), body=BODY + b" ")
    assert not holds(headers_of(), secrets=(new_secret(),))
    assert holds(headers_of(), secrets=(new_secret(), SECRET)), "the secret before the rotation"
    now = int(time.time())
    assert holds(headers_of(at=now - 290)) and holds(headers_of(at=now + 290))
    assert not holds(headers_of(at=now - 310)) and not holds(headers_of(at=now + 310))
    moved = headers_of(at=now - 310) | {"webhook-timestamp": str(now)}
    assert not holds(moved)
    assert not holds(headers_of() | {"webhook-id": "msg_2"})
    several = headers_of()
    several["webhook-signature"] = (
        f"v1,{base64.b64encode(bytes(32)).decode()} v1a,x {several['webhook-signature']}"
    )
    assert holds(several)


@pytest.mark.parametrize(
    "wrong",
    [{"webhook-signature": ""}, {"webhook-signature": "v1"}, {"webhook-signature": "v1,"}, {"webhook-signature": "v1,ö"},
     {"webhook-signature": "v2,abc"}, {"webhook-timestamp": "now"}, {"webhook-timestamp": ""}, {"webhook-timestamp": "-1"},
     {"webhook-timestamp": "1e9"}, {"webhook-timestamp": "٣"}, {"webhook-timestamp": "9" * 5000}, {"webhook-id": ""},
     {"webhook-id": "x" * 300}],
)  # fmt: skip
def test_malformed_headers_do_not_hold(wrong: dict[str, str]) -> None:
    assert not holds(headers_of() | wrong)


def test_github_signs_the_body() -> None:
    # The example of GitHub's documentation.
    secret, body = "It's a Secret to Everybody", b"Hello, World!"
    given = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert holds({"x-hub-signature-256": given}, body=body, secrets=(secret,))
    assert not holds({"x-hub-signature-256": given}, body=body + b"!", secrets=(secret,))
    assert not holds({"x-hub-signature-256": given.replace("7", "8", 1)}, body=body, secrets=(secret,))
    assert not holds({"x-hub-signature-256": "sha256=ö"}, body=body, secrets=(secret,))


def test_gitlab_sends_the_secret_itself() -> None:
    assert holds({"x-gitlab-token": SECRET, "x-gitlab-event": "Push Hook"})
    assert not holds({"x-gitlab-token": SECRET[:-1]}) and not holds({"x-gitlab-token": ""}) and not holds({})
    # A false signature is not saved by a true token.
    assert not holds(headers_of(secret=new_secret()) | {"x-gitlab-token": SECRET})
    assert holds(headers_of() | {"x-gitlab-token": "another"})
