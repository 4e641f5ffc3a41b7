"""E-mail by the environment: what is wrong is named, and links never depend on a request outside of dev."""

from typing import Any

import pytest

from ragsite.core.config import read_mail_server
from tests.ragsite.test_config import GOOD_PROD, read, refused

FROM = {"RAGSITE_EMAIL_FROM": "ragsite <ragsite@example.com>"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://user:p%40ss@host:2525/?tls=starttls", ("host", 2525, "user", "p@ss", "starttls")),
        ("smtp://host", ("host", 587, "", "", "starttls")),
        ("smtp://host?tls=none", ("host", 25, "", "", "none")),
        ("smtps://user:x@[::1]", ("::1", 465, "user", "x", "implicit")),
    ],
)
def test_a_mail_server(url: str, expected: tuple[Any, ...]) -> None:
    found = read_mail_server(url)
    assert (found.host, found.port, found.username, found.password, found.tls) == expected
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "smtp://",
        "host:25",
        "smtp://host:99999",
        "smtp://host:x",
        "smtp://host/path",
        "smtp://host?tls=maybe",
        "smtps://host?tls=none",
        "smtp://user:hunter2@host?ssl=1",
    ],
)
def test_what_is_no_mail_server_is_named_without_its_password(monkeypatch: Any, url: str) -> None:
    message = refused(monkeypatch, RAGSITE_EMAIL_URL=url, **FROM)
    assert message.count("RAGSITE_EMAIL_URL: ") == 1 and "hunter2" not in message
    assert "smtp://user:password@host:587" in message


@pytest.mark.parametrize("sender", ["nobody", "@example.com", "a@", "x <>"])
def test_what_is_no_sender_is_named(monkeypatch: Any, sender: str) -> None:
    assert "RAGSITE_EMAIL_FROM: " in refused(monkeypatch, RAGSITE_EMAIL_FROM=sender)


def test_a_server_needs_a_sender_in_every_environment(monkeypatch: Any) -> None:
    assert "RAGSITE_EMAIL_FROM: " in refused(monkeypatch, RAGSITE_EMAIL_URL="smtp://host")
    more = {"RAGSITE_EMAIL_URL": "smtp://host", "RAGSITE_SITE_URL": "https://rag.example.com"}
    monkeypatch.delenv("RAGSITE_EMAIL_URL")
    assert "RAGSITE_EMAIL_FROM: " in refused(monkeypatch, **GOOD_PROD, **more)


def test_links_of_production_come_from_the_configuration(monkeypatch: Any) -> None:
    mail = {"RAGSITE_EMAIL_URL": "smtp://host", **FROM}
    for hosts in ("localhost", "*", ".example.com", "127.0.0.1", "[::1]", ""):
        message = refused(monkeypatch, **GOOD_PROD, **mail, RAGSITE_ALLOWED_HOSTS=hosts)
        assert "RAGSITE_SITE_URL: " in message, hosts
    found = read(monkeypatch, **GOOD_PROD, **mail, RAGSITE_ALLOWED_HOSTS="rag.example.com,localhost")
    assert found.public_url == "https://rag.example.com"
    found = read(monkeypatch, **GOOD_PROD, **mail, RAGSITE_SITE_URL="https://docs.example.com:8443/")
    assert found.public_url == "https://docs.example.com:8443"
    assert found.mail_server is not None and found.mail_server.host == "host"


@pytest.mark.parametrize("site", ["rag.example.com", "ftp://x", "https://", "https://x/path"])
def test_what_is_no_site_is_named(monkeypatch: Any, site: str) -> None:
    assert "RAGSITE_SITE_URL: " in refused(monkeypatch, RAGSITE_SITE_URL=site)


def test_dev_needs_nothing(monkeypatch: Any) -> None:
    found = read(monkeypatch)
    assert found.mail_server is None and found.public_url == ""
