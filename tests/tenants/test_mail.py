"""E-mails over the wire: a local server that speaks SMTP takes them, or refuses."""

import email
import email.policy
import smtplib
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.mail import get_connection

from ragsite.core.config import read_mail_server
from tenants.mail import is_permanent, send_mail

CONTEXT = {"username": "nina <b>"}


class Dialogue(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as sending one message takes."""

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        server: Any = self.server
        self.say("220 local")
        while line := self.rfile.readline().decode().strip():
            verb = line.upper()
            if verb.startswith("EHLO"):
                self.say("250 local")
            elif verb.startswith("RCPT") and "refused@" in line:
                self.say("550 5.1.1 no such user")
            elif verb.startswith("RCPT") and "later@" in line:
                self.say("451 4.7.1 try again")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part.removeprefix(b".") if part.startswith(b"..") else part)
                server.messages.append(email.message_from_bytes(b"".join(lines), policy=email.policy.default))
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")


@pytest.fixture
def mail_server(settings: Any) -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dialogue) as server:
        server.messages = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = read_mail_server(f"smtp://127.0.0.1:{server.server_address[1]}/?tls=none")
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = found.host, found.port
        settings.EMAIL_USE_TLS = found.tls == "starttls"
        yield server
        server.shutdown()


def send(to: str) -> None:
    send_mail(to=to, subject="Ünder\nway", template="password_changed", context=CONTEXT)


def test_a_message_arrives_as_text_and_html(mail_server: Any, settings: Any) -> None:
    settings.DEFAULT_FROM_EMAIL = "ragsite <ragsite@example.com>"
    send("nina@example.com")
    (message,) = mail_server.messages
    assert message["Subject"] == "Ünder way" and message["To"] == "nina@example.com"
    assert (
        message["From"] == "ragsite <ragsite@example.com>" and message["Auto-Submitted"] == "auto-generated"
    )
    text, html = message.get_body(("plain",)).get_content(), message.get_body(("html",)).get_content()
    assert "nina <b>" in text and "nina &lt;b&gt;" in html


@pytest.mark.parametrize(("to", "permanent"), [("refused@example.com", True), ("later@example.com", False)])
def test_a_refusal_for_good_is_told_from_one_for_now(mail_server: Any, to: str, permanent: bool) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        send(to)
    assert is_permanent(caught.value) is permanent and not mail_server.messages


def test_a_server_that_is_away_or_does_not_let_us_in(mail_server: Any, settings: Any) -> None:
    assert is_permanent(smtplib.SMTPAuthenticationError(535, b"no"))
    assert not is_permanent(smtplib.SMTPServerDisconnected("gone"))
    mail_server.shutdown()
    mail_server.server_close()
    with pytest.raises(OSError) as caught:
        send("nina@example.com")
    assert not is_permanent(caught.value)


def test_a_server_without_tls_is_not_given_a_message_that_asks_for_it(mail_server: Any) -> None:
    """`smtp://` without a word means STARTTLS: never in the clear by mistake."""
    found = read_mail_server(f"smtp://127.0.0.1:{mail_server.server_address[1]}")
    connection = get_connection(host=found.host, port=found.port, use_tls=found.tls == "starttls")
    with pytest.raises(smtplib.SMTPException):
        connection.open()
    assert not mail_server.messages
