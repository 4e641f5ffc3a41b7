"""Forgotten passwords, new ones, and what they end; one's own account."""

import re
import smtplib
import threading
from typing import Any

import pytest
from django.core import mail
from django.db import connections
from django.test import Client

from tenants.models import AuditEvent, Membership, TokenFamily, User
from tenants.people import create_user
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD, member_of
from tests.security.helpers import call, key_client, session_client, signature
from tests.tenants.conftest import People

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
    pytest.mark.usefixtures("tasks_at_once"),
]

NEW = "correct-horse-battery"
ADDRESS = "nina@example.com"


@pytest.fixture(autouse=True)
def nina_has_an_address(people: People) -> None:
    User.objects.filter(username="nina").update(email=ADDRESS)


def ask_for_link(email: str = ADDRESS, client: Client | None = None) -> Any:
    return (client or Client()).post("/password/forgotten/", {"email": email})


def links() -> list[str]:
    return [
        found
        for message in mail.outbox
        for found in re.findall(r"http://testserver(/password/new/\S+)", str(message.body))
    ]


def link_of(email: str = ADDRESS) -> str:
    mail.outbox.clear()
    assert ask_for_link(email).status_code == 200
    (link,) = links()
    return link


def choose(link: str, password: str = NEW, client: Client | None = None) -> Any:
    return (client or Client()).post(
        "/password/new/", {"link": link.partition("link=")[2], "password": password}
    )


def can_sign_in(username: str, password: str) -> bool:
    return bool(Client().post("/sign-in/", {"username": username, "password": password}).status_code == 302)


def events(people: People, action: str, *, of: str = "acme") -> list[AuditEvent]:
    with scope(tenant_id=getattr(people, of).pk, tags=None):
        return list(AuditEvent.objects.filter(action=action))


def test_a_link_by_e_mail_sets_a_new_password_once(people: People) -> None:
    assert "/password/forgotten/" in Client().get("/sign-in/").content.decode()
    link = link_of()
    (message,) = mail.outbox
    assert message.to == [ADDRESS] and "nina" in message.body
    page = Client().get(link)
    assert page.status_code == 200 and "nina" in page.content.decode()
    assert "no-store" in page.headers["Cache-Control"]
    assert page.headers["Referrer-Policy"] == "same-origin"
    response = choose(link)
    assert (response.status_code, response.url) == (302, "/sign-in/")
    assert can_sign_in("nina", NEW) and not can_sign_in("nina", PASSWORD)
    again = choose(link, "another-horse-battery")
    assert again.status_code == 410 and not can_sign_in("nina", "another-horse-battery")
    (event,) = events(people, "password.reset")
    assert event.actor_name == "nina"
    assert [message.subject for message in mail.outbox][1:] == ["Your password for ragsite was changed"]


def test_known_and_unknown_addresses_are_told_the_same(people: People) -> None:
    known, unknown = (signature(ask_for_link(email)) for email in (ADDRESS, "nobody@example.com"))
    assert known == unknown and known[0] == 200
    assert [message.to for message in mail.outbox] == [[ADDRESS]]


def test_whose_address_it_is_is_looked_up_by_the_task_alone(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the request takes the same time for a known address and for an unknown one."""
    from tenants import tasks

    sent: list[Any] = []
    monkeypatch.setattr(tasks.send_password_reset, "apply_async", lambda **options: sent.append(options))
    statements: dict[str, list[str]] = {}
    from django.test.utils import CaptureQueriesContext

    for email in (ADDRESS, "nobody@example.com"):
        with CaptureQueriesContext(connections["default"]) as queries:
            assert ask_for_link(email).status_code == 200
        statements[email] = [one["sql"] for one in queries]
    assert statements[ADDRESS] == statements["nobody@example.com"] == []
    assert [one["kwargs"]["email"] for one in sent] == [ADDRESS, "nobody@example.com"]
    assert "token" not in str(sent) and "link" not in str(sent), "no broker holds what opens an account"


def test_several_accounts_of_an_address_get_one_e_mail_with_a_link_each(people: People) -> None:
    create_user(username="nina2", email="Nina@Example.com", password=PASSWORD, check_password=False)
    assert ask_for_link().status_code == 200
    (message,) = mail.outbox
    assert len(links()) == 2 and "nina2" in message.body
    for link in links():
        assert choose(link).status_code == 302
    assert can_sign_in("nina", NEW)
    assert User.objects.get(username="nina2").check_password(NEW)


def test_service_accounts_and_closed_accounts_get_none(people: People) -> None:
    create_user(username="robot", email="robot@example.com", is_service=True)
    create_user(username="gone", email="gone@example.com", password=PASSWORD, check_password=False)
    link = link_of("gone@example.com")
    User.objects.filter(username="gone").update(is_active=False)
    mail.outbox.clear()
    for email in ("robot@example.com", "gone@example.com", ""):
        ask_for_link(email)
    assert not mail.outbox
    assert Client().get(link).status_code == choose(link).status_code == 410
    User.objects.filter(username="gone").update(is_active=True, is_service=True)
    assert choose(link).status_code == 410


def test_an_address_that_only_looks_alike_gets_nothing(people: People) -> None:
    """PostgreSQL and Python disagree about some letters: a mail must never go to the address that was typed."""
    User.objects.filter(username="nina").update(email="mık@example.com")
    ask_for_link("mik@example.com")
    assert not mail.outbox


def test_a_link_ends_after_an_hour_with_a_sign_in_and_with_another_address(
    people: People, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.PASSWORD_RESET_TIMEOUT == 3600
    from datetime import timedelta

    from django.contrib.auth.tokens import PasswordResetTokenGenerator

    link = link_of()
    real = PasswordResetTokenGenerator._now  # type: ignore[attr-defined]
    for seconds, status in ((3500, 200), (3700, 410)):
        later = timedelta(seconds=seconds)
        monkeypatch.setattr(PasswordResetTokenGenerator, "_now", lambda self, later=later: real(self) + later)
        assert Client().get(link).status_code == status, seconds
    monkeypatch.setattr(PasswordResetTokenGenerator, "_now", real)
    assert can_sign_in("nina", PASSWORD)
    assert Client().get(link).status_code == 410
    link = link_of()
    User.objects.filter(username="nina").update(email="other@example.com")
    assert Client().get(link).status_code == 410


@pytest.mark.parametrize(
    "link",
    ["", "x", "MQ.", ".abc", "MQ.abc-def", "Zm9v.abc-def", "é.é", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ.a-b"],
)
def test_what_is_no_link_is_told_in_the_same_words(people: People, link: str) -> None:
    expected = signature(Client().get("/password/new/", {"link": "MQ.unknown-token"}))
    told = signature(Client().get("/password/new/", {"link": link}))
    assert told == expected and told[0] == 410
    assert Client().post("/password/new/", {"link": link, "password": NEW}).status_code == 410


def test_one_users_link_does_nothing_for_another(people: People) -> None:
    _, _, token = link_of().partition("link=")[2].partition(".")
    from django.utils.encoding import force_bytes
    from django.utils.http import urlsafe_base64_encode

    other = urlsafe_base64_encode(force_bytes(people.gina.membership.user_id))
    assert choose(f"/password/new/?link={other}.{token}").status_code == 410
    assert not can_sign_in("gina", NEW)


def test_a_new_password_ends_every_session_and_token_and_no_key(people: People) -> None:
    ways = {
        "jwt": member_of(slug="acme", username="nina").client,
        "session": session_client("nina"),
        "api_key": key_client(people.nina, principal=people.ada.principal),
    }
    pair = call(Client(), "POST", "/api/v1/token", {"username": "nina", "password": PASSWORD}).json()
    assert {client.get("/api/v1/me").status_code for client in ways.values()} == {200}
    assert choose(link_of()).status_code == 302
    found = {name: client.get("/api/v1/me").status_code for name, client in ways.items()}
    assert found == {"jwt": 401, "session": 401, "api_key": 200}
    assert call(Client(), "POST", "/api/v1/token/refresh", {"refresh": pair["refresh"]}).status_code == 401
    with scope(tenant_id=people.acme.pk, tags=None):
        families = TokenFamily.objects.filter(membership__user__username="nina")
        assert {family.revoked_because for family in families} == {"new password"}


def test_of_two_who_use_a_link_at_once_one_sets_the_password(people: People) -> None:
    link = link_of()
    barrier, statuses = threading.Barrier(3), []

    def run(number: int) -> None:
        try:
            client = Client()
            barrier.wait()
            statuses.append(choose(link, f"correct-horse-battery-{number}", client).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [302, 410, 410]


@pytest.mark.parametrize("password", ["", "short", "password1234", "nina@example.com", "1234567890123"])
def test_a_password_that_cannot_be_used_is_said_and_the_link_lives(people: People, password: str) -> None:
    link = link_of()
    response = choose(link, password)
    assert response.status_code == 400 and 'id="password-error"' in response.content.decode()
    assert choose(link).status_code == 302


def test_asking_is_throttled_by_account_and_by_address_whoever_is_asked_for(people: People) -> None:
    for email in (ADDRESS, "nobody@example.com"):
        assert [ask_for_link(email).status_code for _ in range(4)] == [200, 200, 200, 429], email
    assert len(mail.outbox) == 3
    # Ten from one client in ten minutes; eight were made above.
    assert [ask_for_link(f"x{n}@example.com").status_code for n in range(4)] == [200, 200, 429, 429]


def test_links_begin_with_the_configured_site_whatever_the_host_header_says(
    people: People, settings: Any
) -> None:
    settings.SITE_URL = "https://rag.example.com"
    settings.ALLOWED_HOSTS = ["*"]
    Client().post(
        "/password/forgotten/",
        {"email": ADDRESS},
        headers={"host": "evil.example", "x-forwarded-host": "evil.example"},
    )
    (message,) = mail.outbox
    told = str(message.body) + str(message.alternatives[0][0])  # type: ignore[attr-defined]
    assert "https://rag.example.com/password/new/" in told and "evil" not in told


def test_a_host_that_is_not_ours_is_refused(people: People) -> None:
    response = Client().post("/password/forgotten/", {"email": ADDRESS}, headers={"host": "evil.example"})
    assert response.status_code == 400 and not mail.outbox


def test_without_e_mail_the_page_says_so(people: People, settings: Any) -> None:
    settings.MAIL_IS_SET_UP = False
    page = Client().get("/password/forgotten/").content.decode()
    assert "not set up" in page and "<form" not in page
    assert "not set up" in ask_for_link().content.decode() and not mail.outbox


def test_a_broker_that_is_away_is_said(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from kombu.exceptions import OperationalError

    from tenants import tasks

    def away(**_: Any) -> None:
        raise OperationalError("no broker")

    monkeypatch.setattr(tasks.send_password_reset, "apply_async", away)
    response = ask_for_link()
    assert response.status_code == 503 and response.headers["Retry-After"]


def test_a_refused_recipient_is_not_tried_again(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenants import passwords, tasks

    def refuse(**_: Any) -> None:
        raise smtplib.SMTPRecipientsRefused({ADDRESS: (550, b"no")})

    monkeypatch.setattr(passwords, "send_mail", refuse)
    tasks.send_password_reset.apply(kwargs={"email": ADDRESS, "site": "http://x"}, throw=True)


def test_the_forms_ask_for_their_csrf_token(people: People) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert ask_for_link(client=strict).status_code == 403 and not mail.outbox
    assert choose(link_of(), client=strict).status_code == 403


class TestAccount:
    def change(self, client: Client, form: str, **values: str) -> Any:
        return client.post("/account/", {"form": form, **values})

    def test_it_shows_ones_own_memberships(self, people: People) -> None:
        page = session_client("nina").get("/account/").content.decode()
        assert "Acme" in page and "network_engineer" in page and ADDRESS in page
        assert "Globex" not in page
        assert Client().get("/account/").status_code == 302

    def test_a_new_password_asks_for_the_old_one_and_ends_the_other_sign_ins(self, people: People) -> None:
        here, elsewhere = session_client("nina"), session_client("nina")
        token = member_of(slug="acme", username="nina").client
        wrong = self.change(here, "password", old="not-hers", new=NEW)
        assert wrong.status_code == 400 and 'id="old-error"' in wrong.content.decode()
        weak = self.change(here, "password", old=PASSWORD, new="short")
        assert weak.status_code == 400 and 'id="new-error"' in weak.content.decode()
        assert can_sign_in("nina", PASSWORD) and elsewhere.get("/api/v1/me").status_code == 200
        assert self.change(here, "password", old=PASSWORD, new=NEW).status_code == 302
        assert here.get("/api/v1/me").status_code == 200
        assert elsewhere.get("/api/v1/me").status_code == token.get("/api/v1/me").status_code == 401
        assert can_sign_in("nina", NEW)
        assert len(events(people, "password.change")) == 1
        assert [message.to for message in mail.outbox] == [[ADDRESS]]

    def test_wrong_passwords_are_throttled(self, people: People) -> None:
        here = session_client("nina")
        statuses = [self.change(here, "password", old="wrong", new=NEW).status_code for _ in range(11)]
        assert statuses[:10] == [400] * 10 and statuses[10] == 429
        assert self.change(here, "password", old=PASSWORD, new=NEW).status_code == 429

    def test_signing_out_everywhere_leaves_this_session_alone(self, people: People) -> None:
        here, elsewhere = session_client("nina"), session_client("nina")
        token = member_of(slug="acme", username="nina").client
        key = key_client(people.nina, principal=people.ada.principal)
        assert self.change(here, "sign-ins", current="wrong").status_code == 400
        assert elsewhere.get("/api/v1/me").status_code == 200
        assert self.change(here, "sign-ins", current=PASSWORD).status_code == 302
        assert here.get("/api/v1/me").status_code == key.get("/api/v1/me").status_code == 200
        assert elsewhere.get("/api/v1/me").status_code == token.get("/api/v1/me").status_code == 401
        assert can_sign_in("nina", PASSWORD), "the password is the same"
        assert len(events(people, "session.end_all")) == 1

    def test_another_address_asks_for_the_password(self, people: People) -> None:
        here = session_client("nina")
        for password, email, field in (
            (PASSWORD, "nonsense", "email"),
            ("wrong", "n@example.com", "password"),
        ):
            response = self.change(here, "email", email=email, password=password)
            assert response.status_code == 400 and f'id="{field}-error"' in response.content.decode()
        assert User.objects.get(username="nina").email == ADDRESS
        assert self.change(here, "email", email="n@example.com", password=PASSWORD).status_code == 302
        assert User.objects.get(username="nina").email == "n@example.com"
        (event,) = events(people, "account.email")
        assert event.detail == {"before": ADDRESS, "after": "n@example.com"}

    def test_it_is_in_the_log_of_each_of_ones_tenants(self, people: People) -> None:
        from tenants.models import Role
        from tenants.people import add_member

        with scope(tenant_id=people.globex.pk, tags=None):
            add_member(user=people.nina.membership.user, role=Role.objects.get(name="helpdesk"))
        choose(link_of())
        assert (
            len(events(people, "password.reset")) == len(events(people, "password.reset", of="globex")) == 1
        )

    def test_a_token_or_key_changes_nothing_of_the_account(self, people: People) -> None:
        for client in (people.nina.client, key_client(people.nina, principal=people.ada.principal)):
            assert self.change(client, "email", email="n@example.com", password=PASSWORD).status_code == 403
        assert self.change(session_client("nina"), "nonsense").status_code == 400


def test_a_reset_is_no_way_around_a_suspension(people: People) -> None:
    with unscoped(reason="tests"):
        Membership.objects.filter(user__username="nina").update(status="suspended")
    assert choose(link_of()).status_code == 302
    assert not can_sign_in("nina", NEW)
    with unscoped(reason="tests"):
        assert AuditEvent.objects.filter(action="password.reset", tenant=None, actor_name="nina").count() == 1
