"""E-mails: plain text with an HTML twin, nothing in them that is fetched from anywhere.

Their links begin with the configured address of the site, never with what a request's Host header says; only in dev,
where none is configured, with the address that the request came to (and that ``ALLOWED_HOSTS`` let in).
"""

import smtplib
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.http import HttpRequest
from django.template.loader import render_to_string

# What a mail server says for good: another try would say the same.
PERMANENT = 500


def mail_is_set_up() -> bool:
    """Whether e-mails leave this installation; where they do not, the pages say so and give links to pass on."""
    return bool(settings.MAIL_IS_SET_UP)


def site_of(request: HttpRequest) -> str:
    """What links to this site begin with."""
    return settings.SITE_URL or request.build_absolute_uri("/").rstrip("/")


def send_mail(*, to: str, subject: str, template: str, context: dict[str, Any]) -> None:
    """Sends ``templates/tenants/email/<template>.txt`` with its ``.html`` twin to one address.

    Raises:
        OSError: the server was not reached or did not take it (``smtplib.SMTPException`` is one).
    """
    name = f"tenants/email/{template}"
    message = EmailMultiAlternatives(
        # A line break in a tenant's name must not become a header.
        subject=" ".join(subject.split()),
        body=render_to_string(f"{name}.txt", context),
        to=[to],
        headers={"Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(render_to_string(f"{name}.html", context), "text/html")
    message.send()


def is_permanent(error: OSError) -> bool:
    """Whether a mail server refused for good."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            return all(code >= PERMANENT for code, _ in error.recipients.values())
        case smtplib.SMTPResponseException():
            return int(error.smtp_code) >= PERMANENT
    return False
