"""Invitations: sent, opened, accepted once; no stranger learns anything from one."""

import re
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connections
from django.test import Client
from django.utils import timezone

from tenants.authentication import SESSION_TENANT
from tenants.invitations import read_addresses
from tenants.models import ApiKey, AuditEvent, Invitation, Membership, Role, User
from tenants.people import create_tenant, create_user, set_tenant_status
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD
from tests.security.helpers import call, session_client, signature
from tests.tenants.conftest import People

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
    pytest.mark.usefixtures("tasks_at_once"),
]

GOOD = {"username": "neil", "password": "correct-horse-battery"}


def role_id(people: People, name: str = "helpdesk") -> str:
    with scope(tenant_id=people.acme.pk, tags=None):
        return str(Role.objects.get(name=name).pk)


def invite(people: People, emails: str = "neil@example.com", role: str = "helpdesk") -> Any:
    return session_client("ada").post("/members/", {"emails": emails, "role": role_id(people, role)})


def link_in(message: Any) -> str:
    found = re.search(r"http://testserver(/join/\?invitation=\S+)", str(message.body))
    assert found, message.body
    return found.group(1)


def invited(people: People, role: str = "helpdesk") -> str:
    """Invites neil; the path of his link."""
    mail.outbox.clear()
    assert invite(people, role=role).status_code == 302
    return link_in(mail.outbox[-1])


def token_of(path: str) -> str:
    return path.partition("invitation=")[2]


def accept(client: Client, path: str, **form: str) -> Any:
    return client.post("/join/", {"invitation": token_of(path), **form})


def rows(people: People) -> list[Invitation]:
    with scope(tenant_id=people.acme.pk, tags=None):
        return list(Invitation.objects.select_related("role").order_by("email"))


def change(people: People, **values: Any) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        Invitation.objects.update(**values)


def events(people: People, action: str) -> list[AuditEvent]:
    with scope(tenant_id=people.acme.pk, tags=None):
        return list(AuditEvent.objects.filter(action=action))


def test_somebody_new_makes_an_account_and_is_in(people: People) -> None:
    path = invited(people)
    (message,) = mail.outbox
    assert message.to == ["neil@example.com"] and "Acme" in message.subject
    html = message.alternatives[0][0]  # type: ignore[attr-defined]
    assert path.partition("?")[0] in html and "ada" in html and "helpdesk" in html
    for fetched in ("<img", "src=", "<style", "<link", "<script"):
        assert fetched not in html
    neil = Client()
    page = neil.get(path)
    assert page.status_code == 200 and "no-store" in page.headers["Cache-Control"]
    assert "Join Acme" in page.content.decode() and "neil@example.com" in page.content.decode()
    response = accept(neil, path, **GOOD)
    assert (response.status_code, response.url) == (302, "/")
    assert neil.session[SESSION_TENANT] == str(people.acme.pk)
    me = neil.get("/api/v1/me").json()
    assert (me["username"], me["role"]) == ("neil", "helpdesk")
    user = User.objects.get(username="neil")
    assert user.email == "neil@example.com" and user.check_password(GOOD["password"])
    (row,) = rows(people)
    assert row.accepted_by_id == user.pk and row.accepted_at is not None
    (event,) = events(people, "invitation.accept")
    assert (event.actor_name, event.detail["role"]) == ("neil", "helpdesk")
    assert len(events(people, "invitation.create")) == 1
    (joined,) = [event for event in events(people, "member.add") if event.detail["user"] == "neil"]
    assert joined.actor_name == "neil"


def test_only_the_hash_of_the_secret_is_kept(people: People) -> None:
    where, _, secret = token_of(invited(people)).removeprefix("inv_").partition(".")
    assert len(secret) >= 43 and where
    with connections["platform"].cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE position(%s in t::text) > 0', [secret])
            assert cursor.fetchone() == (0,), table
    assert secret not in session_client("ada").get("/members/").content.decode()


def test_a_link_works_once(people: People) -> None:
    path = invited(people)
    assert accept(Client(), path, **GOOD).status_code == 302
    again = accept(Client(), path, username="other", password="correct-horse-battery")
    assert again.status_code == 410 and "accepted already" in again.content.decode()
    assert not User.objects.filter(username="other").exists()
    assert Client().get(path).status_code == 410


def test_of_two_who_accept_at_once_one_gets_in(people: People) -> None:
    path = invited(people)
    barrier, statuses = threading.Barrier(4), []

    def run(number: int) -> None:
        try:
            client = Client()
            client.get(path)
            barrier.wait()
            form = {"username": f"neil{number}", "password": "correct-horse-battery"}
            statuses.append(accept(client, path, **form).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [302, 410, 410, 410]
    assert User.objects.filter(username__startswith="neil").count() == 1, "the losers leave no account behind"
    with scope(tenant_id=people.acme.pk, tags=None):
        assert Membership.objects.filter(user__username__startswith="neil").count() == 1


def test_somebody_signed_in_accepts_with_one_click_and_is_in_that_tenant(people: People) -> None:
    path = invited(people)
    gina = session_client("gina")
    page = gina.get(path).content.decode()
    assert "Accept as gina" in page and 'name="password"' not in page
    assert accept(gina, path).url == "/"
    assert gina.session[SESSION_TENANT] == str(people.acme.pk)
    assert gina.get("/api/v1/me").json()["role"] == "helpdesk"
    with unscoped(reason="tests"):
        assert Membership.objects.filter(user__username="gina").count() == 2
    assert User.objects.get(username="gina").email == "", "the account stays as it was"


def test_somebody_signed_out_signs_in_first(people: People) -> None:
    path = invited(people)
    gina = Client()
    page = gina.get(path).content.decode()
    assert "/sign-in/?next=%2Fjoin%2F%3Finvitation%3D" in page
    response = gina.post("/sign-in/", {"username": "gina", "password": PASSWORD, "next": path})
    assert response.url == path
    assert accept(gina, path).status_code == 302


def test_somebody_without_any_tenant_left_signs_in_to_accept_and_nowhere_else(people: People) -> None:
    create_user(username="lone", password=PASSWORD, check_password=False)
    path = invited(people)
    lone = Client()
    form = {"username": "lone", "password": PASSWORD}
    assert lone.post("/sign-in/", form).status_code == 403
    assert lone.post("/sign-in/", {**form, "next": path}).url == path
    assert lone.get("/").status_code == 401, "signed in, but of no tenant: nothing but the invitation"
    assert lone.post("/sign-in/", {**form, "next": path}).url == path
    assert accept(lone, path).status_code == 302
    assert lone.get("/api/v1/me").json()["role"] == "helpdesk"


def test_a_member_does_not_become_one_twice_nor_comes_back_from_suspension(people: People) -> None:
    path = invited(people, role="admin")
    nina = session_client("nina")
    assert "a member already" in nina.get(path).content.decode()
    assert accept(nina, path).status_code == 409
    other = session_client("gina")
    with unscoped(reason="tests"):
        Membership.objects.filter(user__username="nina").update(status="suspended")
    assert accept(nina, path).status_code == 409
    with scope(tenant_id=people.acme.pk, tags=None):
        nina_now = Membership.objects.select_related("role").get(user__username="nina")
        assert (nina_now.status, nina_now.role.name) == ("suspended", "network_engineer")
    assert accept(other, path).status_code == 302, "the invitation is still good for somebody else"


def test_unknown_revoked_and_orphaned_are_told_in_the_same_words(people: People) -> None:
    path = invited(people)
    token = token_of(path)
    where = token.partition(".")[0]
    unknown = f"/join/?invitation={where}.{'A' * 43}"
    expected = signature(Client().get(unknown), hiding=(token_of(unknown),))
    assert expected[0] == 404
    for broken in (
        "",
        "nonsense",
        "inv_",
        "inv_x.y",
        "rsk_" + token[4:],
        token[:-1],
        token + "é",
        "inv_" + "%00",
    ):
        told = Client().get("/join/", {"invitation": broken})
        assert signature(told, hiding=(broken,))[0] == 404, broken
        assert "is not valid" in told.content.decode()
    set_tenant_status(tenant=people.acme, status="suspended")
    assert signature(Client().get(path), hiding=(token,)) == expected
    set_tenant_status(tenant=people.acme, status="active")
    assert Client().get(path).status_code == 200
    session_client("ada").post(f"/invitations/{rows(people)[0].pk}/revoke/")
    assert signature(Client().get(path), hiding=(token,)) == expected
    assert accept(Client(), path, **GOOD).status_code == 404
    change(people, revoked_at=None)
    assert Client().get(path).status_code == 200
    with scope(tenant_id=people.acme.pk, tags=None):
        Role.objects.get(name="helpdesk").delete()
    assert signature(Client().get(path), hiding=(token,)) == expected
    assert not User.objects.filter(username="neil").exists()


def test_a_foreign_tenants_where_opens_nothing(people: People) -> None:
    """The part that says where to look is no proof of anything: a secret fits its own invitation alone."""
    first = token_of(invited(people))
    gus = session_client("gus")
    with scope(tenant_id=people.globex.pk, tags=None):
        role = Role.objects.get(name="admin").pk
    mail.outbox.clear()
    gus.post("/members/", {"emails": "x@example.com", "role": role})
    second = token_of(link_in(mail.outbox[0]))
    mixed = f"{second.partition('.')[0]}.{first.partition('.')[2]}"
    assert Client().get("/join/", {"invitation": mixed}).status_code == 404
    assert accept(Client(), f"invitation={mixed}", **GOOD).status_code == 404


def test_an_expired_one_says_so(people: People) -> None:
    path = invited(people)
    (row,) = rows(people)
    assert timedelta(days=6) < row.expires_at - timezone.now() <= timedelta(days=7)
    change(people, expires_at=timezone.now() - timedelta(seconds=1))
    response = Client().get(path)
    assert response.status_code == 410 and "expired" in response.content.decode()
    assert accept(Client(), path, **GOOD).status_code == 410
    assert not User.objects.filter(username="neil").exists()
    assert "expired" in session_client("ada").get("/members/").content.decode()


def test_what_cannot_be_used_is_said_and_the_invitation_stays(people: People) -> None:
    path = invited(people)
    for form, field in (
        ({"username": "", "password": "correct-horse-battery"}, "username"),
        ({"username": "ne il", "password": "correct-horse-battery"}, "username"),
        ({"username": "nina", "password": "correct-horse-battery"}, "username"),
        ({"username": "ni\0l", "password": "correct-horse-battery"}, "username"),
        ({"username": "neil", "password": ""}, "password"),
        ({"username": "neil", "password": "short"}, "password"),
        ({"username": "neil", "password": "password1234"}, "password"),
        ({"username": "neilneilneil", "password": "neilneilneil"}, "password"),
    ):
        response = accept(Client(), path, **form)
        assert response.status_code in (400, 409), form
        page = response.content.decode()
        assert f'id="{field}-error"' in page, form
        assert not re.search(r'<input id="password"[^>]*value', page), form
    assert accept(Client(), path, **GOOD).status_code == 302


def test_making_accounts_is_throttled_by_address(people: People) -> None:
    path = invited(people)
    for _ in range(20):
        assert accept(Client(), path, username="neil", password="short").status_code == 400
    response = accept(Client(), path, **GOOD)
    assert response.status_code == 429 and int(response.headers["Retry-After"]) > 0


def test_the_forms_ask_for_their_csrf_token(people: People) -> None:
    path = invited(people)
    strict = Client(enforce_csrf_checks=True)
    assert accept(strict, path, **GOOD).status_code == 403
    gina = session_client("gina", csrf=True)
    assert accept(gina, path).status_code == 403


def test_sending_again_makes_the_link_of_before_useless(people: People) -> None:
    first = invited(people)
    mail.outbox.clear()
    session_client("ada").post(f"/invitations/{rows(people)[0].pk}/resend/")
    second = link_in(mail.outbox[0])
    assert Client().get(first).status_code == 404
    assert Client().get(second).status_code == 200
    assert len(events(people, "invitation.resend")) == 1


def test_inviting_an_address_again_renews_it_with_the_role_named_now(people: People) -> None:
    first = invited(people)
    change(people, expires_at=timezone.now() - timedelta(days=1))
    second = invited(people, role="management")
    (row,) = rows(people)
    assert row.role.name == "management" and row.is_open
    assert Client().get(first).status_code == 404 and Client().get(second).status_code == 200


def test_several_are_invited_at_once_and_members_are_passed_over(people: People) -> None:
    User.objects.filter(username="nina").update(email="nina@example.com")
    with unscoped(reason="tests"):
        User.objects.filter(username="gina").update(email="gina@example.com")
    response = invite(
        people, "A@Example.com, b@example.com;\n nina@example.com  gina@example.com a@example.com"
    )
    assert response.status_code == 302
    # gina's account in another tenant makes no difference, to nobody.
    assert [row.email for row in rows(people)] == ["a@example.com", "b@example.com", "gina@example.com"]
    assert sorted(message.to[0] for message in mail.outbox) == [row.email for row in rows(people)]


def test_one_wrong_address_and_nobody_is_invited(people: People) -> None:
    for emails, words in (
        ("a@example.com, not-one", "not-one"),
        ("", "at least one"),
        ("a@b", "a@b"),
        (", ".join(f"a{n}@example.com" for n in range(51)), "at most 50"),
        ("a@example.com\0", ""),
    ):
        response = invite(people, emails)
        if words:
            assert response.status_code == 400 and words in response.content.decode(), emails
    response = session_client("ada").post("/members/", {"emails": "c@example.com", "role": "nonsense"})
    assert response.status_code == 400 and "Choose a role" in response.content.decode()
    assert "c@example.com" in response.content.decode(), "what was typed is not lost"
    assert [row.email for row in rows(people)] == ["a@example.com"]


def test_a_foreign_role_cannot_be_given(people: People) -> None:
    with scope(tenant_id=people.globex.pk, tags=None):
        foreign = Role.objects.get(name="admin").pk
    response = session_client("ada").post("/members/", {"emails": "c@example.com", "role": foreign})
    assert response.status_code == 400 and not rows(people)


def test_inviting_is_throttled_by_tenant(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenants import invitations

    monkeypatch.setattr(invitations, "PER_HOUR", 2)
    assert invite(people, "a@example.com b@example.com").status_code == 302
    assert invite(people, "c@example.com").status_code == 429
    assert len(mail.outbox) == 2


def test_a_line_break_in_a_name_is_no_header(people: People) -> None:
    with unscoped(reason="tests"):
        type(people.acme).objects.filter(pk=people.acme.pk).update(name="Acme\r\nBcc: all@example.com")
    invited(people)
    (message,) = mail.outbox
    assert "\n" not in message.subject and message.recipients() == ["neil@example.com"]


def test_without_e_mail_the_inviter_gets_the_link_once(people: People, settings: Any) -> None:
    settings.MAIL_IS_SET_UP = False
    response = invite(people)
    page = response.content.decode()
    assert response.status_code == 200 and "no-store" in response.headers["Cache-Control"]
    found = re.search(r"<code>http://testserver(/join/\?invitation=[^<]+)</code>", page)
    assert found and not mail.outbox
    assert token_of(found.group(1)) not in session_client("ada").get("/members/").content.decode()
    assert accept(Client(), found.group(1), **GOOD).status_code == 302
    again = session_client("ada")
    invite(people, "b@example.com")
    (row,) = [row for row in rows(people) if row.email == "b@example.com"]
    assert "<code>http://testserver/join/" in again.post(f"/invitations/{row.pk}/resend/").content.decode()


def test_links_begin_with_the_configured_site_whatever_the_host_header_says(
    people: People, settings: Any
) -> None:
    settings.SITE_URL = "https://rag.example.com"
    settings.ALLOWED_HOSTS = ["*"]
    ada = session_client("ada")
    form = {"emails": "neil@example.com", "role": role_id(people)}
    ada.post("/members/", form, headers={"host": "evil.example", "x-forwarded-host": "evil.example"})
    body = str(mail.outbox[0].body) + str(mail.outbox[0].alternatives[0][0])  # type: ignore[attr-defined]
    assert "https://rag.example.com/join/" in body and "evil" not in body


def test_those_who_do_not_manage_cannot_invite(people: People) -> None:
    invited(people)
    (row,) = rows(people)
    nina = session_client("nina")
    assert nina.post("/members/", {"emails": "x@example.com", "role": role_id(people)}).status_code == 403
    for what in ("resend", "revoke"):
        assert nina.post(f"/invitations/{row.pk}/{what}/").status_code == 403
        assert session_client("gus").post(f"/invitations/{row.pk}/{what}/").status_code == 404
    assert rows(people)[0].is_open and len(mail.outbox) == 1


def test_an_accepted_one_is_neither_sent_again_nor_withdrawn(people: People) -> None:
    path = invited(people)
    accept(Client(), path, **GOOD)
    (row,) = rows(people)
    for what in ("resend", "revoke"):
        assert session_client("ada").post(f"/invitations/{row.pk}/{what}/").status_code == 404


def test_a_mail_server_that_is_away_is_tried_again_and_one_that_refuses_is_not(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    import smtplib

    from celery.contrib.testing.worker import start_worker

    from tenants import invitations, tasks
    from tenants.tasks import send_invitation

    invited(people)
    (row,) = rows(people)
    job = {
        "kwargs": {"invitation_id": str(row.pk), "site": "http://testserver"},
        "headers": {"ragsite_tenant": str(people.acme.pk)},
    }
    tried = []

    def refuse(error: Exception) -> Any:
        def send(**_: Any) -> None:
            tried.append(error)
            raise error

        return send

    from ragsite.celery import app

    monkeypatch.setattr(tasks, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(invitations, "send_mail", refuse(ConnectionRefusedError()))
    app.conf.update(
        task_always_eager=False
    )  # a real worker: a message that is sent again must name its tenant again
    send_invitation.apply_async(**job)
    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="CRITICAL"):
        deadline = time.monotonic() + 20
        while len(tried) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
    connections.close_all()
    assert len(tried) == 4, "once, and three times more"
    tried.clear()
    gone = smtplib.SMTPRecipientsRefused({"neil@example.com": (550, b"no such user")})
    monkeypatch.setattr(invitations, "send_mail", refuse(gone))
    send_invitation.apply(**job, throw=True)
    assert len(tried) == 1


def test_an_invitation_that_ended_meanwhile_is_not_sent(people: People) -> None:
    from tenants.tasks import send_invitation

    invited(people)
    mail.outbox.clear()
    (row,) = rows(people)
    change(people, revoked_at=timezone.now())
    send_invitation.apply(
        kwargs={"invitation_id": str(row.pk), "site": "http://x"},
        headers={"ragsite_tenant": str(people.acme.pk)},
        throw=True,
    )
    assert not mail.outbox


def test_addresses_are_read_each_once_in_lower_case() -> None:
    assert read_addresses(" B@x.de,a@x.de;b@X.de\r\n") == ["b@x.de", "a@x.de"]


class TestApi:
    def test_an_address_and_a_role_invite(self, people: People) -> None:
        body = {"email": "Neil@Example.com", "role": "helpdesk"}
        response = call(people.ada.client, "POST", "/api/v1/members", body)
        assert response.status_code == 202, response.content
        told = response.json()
        assert told["email"] == "neil@example.com" and told["role"] == "helpdesk"
        assert told["invited_by"] == "ada" and told["is_open"] and told["link"] is None and told["sent_at"]
        assert accept(Client(), link_in(mail.outbox[0]), **GOOD).status_code == 302

    def test_a_user_name_makes_a_user_as_before(self, people: People) -> None:
        body = {
            "username": "neil",
            "email": "n@example.com",
            "role": "helpdesk",
            "password": "correct-horse-7",
        }
        response = call(people.ada.client, "POST", "/api/v1/members", body)
        assert response.status_code == 201 and response.json()["username"] == "neil"
        assert not mail.outbox and not rows(people)

    def test_what_fits_neither_is_refused(self, people: People) -> None:
        for body in (
            {"role": "helpdesk"},
            {"email": "n@example.com", "role": "helpdesk", "service": True},
            {"email": "n@example.com", "role": "helpdesk", "password": "correct-horse-7"},
            {"email": "nonsense", "role": "helpdesk"},
            {"email": "n@example.com", "role": "nonsense"},
            {"email": "n@example.com"},
        ):
            response = call(people.ada.client, "POST", "/api/v1/members", body)
            assert response.status_code == 400 and response.json()["errors"], body
        User.objects.filter(username="nina").update(email="nina@example.com")
        body = {"email": "nina@example.com", "role": "helpdesk"}
        assert call(people.ada.client, "POST", "/api/v1/members", body).status_code == 409
        assert not rows(people) and not mail.outbox

    def test_without_e_mail_the_link_is_in_the_answer(self, people: People, settings: Any) -> None:
        settings.MAIL_IS_SET_UP = False
        body = {"email": "neil@example.com", "role": "helpdesk"}
        told = call(people.ada.client, "POST", "/api/v1/members", body).json()
        path = told["link"].removeprefix("http://testserver")
        assert accept(Client(), path, **GOOD).status_code == 302
        assert told["sent_at"] is None

    def test_invitations_are_listed_and_withdrawn(self, people: People) -> None:
        path = invited(people)
        listed = people.ada.client.get("/api/v1/invitations").json()["results"]
        assert [one["email"] for one in listed] == ["neil@example.com"]
        assert "link" not in listed[0] and "secret" not in str(listed)
        one = f"/api/v1/invitations/{listed[0]['id']}"
        assert people.ada.client.get(one).json() == listed[0]
        assert people.gus.client.get("/api/v1/invitations").json()["results"] == []
        assert people.gus.client.get(one).status_code == 404
        assert people.nina.client.get(one).status_code == 403
        assert call(people.ada.client, "DELETE", one).status_code == 204
        assert call(people.ada.client, "DELETE", one).status_code == 204
        assert Client().get(path).status_code == 404
        assert people.ada.client.get(one).json()["is_open"] is False
        assert len(events(people, "invitation.revoke")) == 1


def test_a_new_tenants_first_member_can_be_invited_by_key(people: People) -> None:
    """What a robot that manages does: an API key with the scope alone invites."""
    create_tenant(slug="initech", name="Initech")
    made = call(people.ada.client, "POST", "/api/v1/api-keys", {"name": "robot", "scopes": ["manage"]}).json()
    robot = Client(headers={"authorization": f"Bearer {made['key']}"})
    body = {"email": "x@example.com", "role": "helpdesk"}
    assert call(robot, "POST", "/api/v1/members", body).status_code == 202
    with scope(tenant_id=people.acme.pk, tags=None):
        ApiKey.objects.update(scopes=["ask"])
    assert call(robot, "POST", "/api/v1/members", body).status_code == 403
