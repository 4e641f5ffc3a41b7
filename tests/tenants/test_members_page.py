"""The members page: who is here, found, moved, suspended, removed; and what it costs the database."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tenants.keys import create_api_key, create_service_account
from tenants.models import AuditEvent, Invitation, Membership, Role, User
from tenants.scope import scope
from tests.security.helpers import session_client
from tests.tenants.conftest import People
from tests.tenants.counting import queries_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
HTMX = {"hx-request": "true"}


def role(people: People, name: str) -> Role:
    with scope(tenant_id=people.acme.pk, tags=None):
        found: Role = Role.objects.get(name=name)
        return found


def member(people: People, username: str) -> Membership:
    with scope(tenant_id=people.acme.pk, tags=None):
        found: Membership = Membership.objects.select_related("role").get(user__username=username)
        return found


def add_many(people: People, count: int, *, start: int = 0) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        helpdesk = Role.objects.get(name="helpdesk")
        users = User.objects.bulk_create(
            User(username=f"m{number:03}", email=f"m{number:03}@example.com")
            for number in range(start, start + count)
        )
        Membership.objects.bulk_create(Membership(user=user, role=helpdesk) for user in users)
        Invitation.objects.bulk_create(
            Invitation(
                email=f"i{number:03}@example.com",
                role=helpdesk,
                secret_hash="x",
                expires_at=timezone.now() + timedelta(days=1),
            )
            for number in range(start, start + count)
        )
        AuditEvent.objects.bulk_create(
            AuditEvent(action="session.sign_in", actor_name=user.username) for user in users
        )


def post(client: Client, people: People, username: str, what: str = "", **form: Any) -> Any:
    return client.post(f"/members/{member(people, username).pk}/{what}", form)


def test_everybody_is_listed_with_role_status_and_last_sign_in(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        robot = create_service_account(
            principal=people.ada.principal, name="robot", role=Role.objects.get(name="helpdesk")
        )
        create_api_key(principal=people.ada.principal, member=robot, name="key")
        Invitation.objects.create(
            email="late@example.com",
            role=Role.objects.get(name="helpdesk"),
            expires_at=timezone.now() - timedelta(days=1),
        )
        Invitation.objects.create(
            email="new@example.com",
            role=Role.objects.get(name="management"),
            expires_at=timezone.now() + timedelta(days=1),
        )
    page = session_client("ada").get("/members/").content.decode()
    for words in (
        "ada",
        "nina",
        "robot",
        "service account",
        "late@example.com",
        "expired",
        "new@example.com",
        "invited",
    ):
        assert words in page, words
    assert "just now" in page, "ada has just signed in"
    assert "gus" not in page and "gina" not in page
    assert "never" in page, "nina has not"


def test_a_sign_in_elsewhere_is_not_told(people: People) -> None:
    """The last sign-in is into this tenant: what a person does in another is nobody's business here."""
    from tenants.people import add_member

    with scope(tenant_id=people.acme.pk, tags=None):
        add_member(user=people.gina.membership.user, role=Role.objects.get(name="helpdesk"))
    with scope(tenant_id=people.globex.pk, tags=None):
        AuditEvent.objects.create(action="session.sign_in", actor_name="gina")
    User.objects.filter(username="gina").update(last_login=timezone.now())
    page = session_client("ada").get("/members/?q=gina").content.decode()
    assert "gina" in page and "never" in page and "just now" not in page


def test_the_list_is_narrowed(people: People) -> None:
    add_many(people, 3)
    ada = session_client("ada")

    def shown(query: str) -> set[str]:
        page = ada.get(f"/members/?{query}").content.decode()
        names = ("ada", "nina", "m000", "m001", "m002", "i000@example.com", "i001@example.com")
        return {name for name in names if f"<strong>{name}</strong>" in page}

    assert shown("q=M00") == {"m000", "m001", "m002"}
    assert shown("q=m001@") == {"m001"}
    assert shown("q=%25") == shown("q=nobody") == set(), "no pattern of the database's"
    assert shown("role=network_engineer") == {"nina"}
    assert shown("status=invited") == {"i000@example.com", "i001@example.com"}
    assert shown("status=service") == set()
    post(ada, people, "nina", status="suspended")
    assert shown("status=suspended") == {"nina"}
    assert "Nobody fits" in ada.get("/members/?q=nobody").content.decode()
    part = ada.get("/members/?q=m001", headers=HTMX).content.decode()
    assert part.lstrip().startswith('<div id="list"') and "<html" not in part and "m001" in part


def test_pages_follow_each_other_by_name(people: People) -> None:
    add_many(people, 120)
    ada, query, seen = session_client("ada"), "", []
    while True:
        page = ada.get(f"/members/{query}").content.decode()
        seen += [f"m{n:03}" for n in range(120) if f"<strong>m{n:03}</strong>" in page]
        if "Next page" not in page:
            break
        query = "?" + page.split('href="/members/?')[-1].partition('"')[0]
    assert seen == [f"m{n:03}" for n in range(120)]


def test_many_invitations_are_ten_at_first_and_all_of_them_by_pages(people: People) -> None:
    add_many(people, 60)
    ada = session_client("ada")
    page = ada.get("/members/").content.decode()
    assert page.count("not yet</span>") == 10 and "?status=invited" in page
    seen: list[str] = []
    query = "?status=invited"
    for _ in range(3):
        page = ada.get(f"/members/{query}").content.decode()
        seen += [f"i{n:03}" for n in range(60) if f"<strong>i{n:03}@example.com</strong>" in page]
        query = "?" + page.split('href="/members/?')[-1].partition('"')[0].replace("&amp;", "&")
    assert sorted(seen) == [f"i{n:03}" for n in range(60)] and "Next page" not in page
    assert ada.get("/members/?status=invited&after=nonsense").status_code == 400


def test_the_database_is_asked_as_often_for_fifty_as_for_five(people: People) -> None:
    add_many(people, 5)
    ada = session_client("ada")
    few = queries_of(lambda: ada.get("/members/"))
    add_many(people, 45, start=5)
    many = queries_of(lambda: ada.get("/members/"))
    assert many == few <= 12


def test_another_role_holds_from_the_next_request(people: People) -> None:
    ada, nina = session_client("ada"), session_client("nina")
    assert nina.get("/members/").status_code == 403
    response = post(ada, people, "nina", role=role(people, "admin").pk)
    assert (response.status_code, response.url) == (302, "/members/")
    assert "nina is admin now" in ada.get("/members/").content.decode()
    assert nina.get("/members/").status_code == 200
    with scope(tenant_id=people.acme.pk, tags=None):
        event = AuditEvent.objects.get(action="member.change")
        assert event.actor_name == "ada" and event.detail["after"]["role"] == "admin"


def test_suspending_and_letting_in(people: People) -> None:
    ada, nina = session_client("ada"), session_client("nina")
    assert post(ada, people, "nina", status="suspended").status_code == 302
    assert nina.get("/").status_code == 401
    assert post(ada, people, "nina", status="active").status_code == 302
    assert member(people, "nina").is_active


def test_htmx_gets_the_list_and_what_there_is_to_say(people: People) -> None:
    path = f"/members/{member(people, 'nina').pk}/?q=nin"
    response = session_client("ada").post(path, {"status": "suspended"}, headers=HTMX)
    page = response.content.decode()
    assert response.status_code == 200 and "<html" not in page
    assert 'hx-swap-oob="beforeend"' in page and "nina is suspended" in page
    assert "Let in" in page and "<strong>ada</strong>" not in page, "narrowed as it was"


def test_removing(people: People) -> None:
    ada, nina = session_client("ada"), session_client("nina")
    assert post(ada, people, "nina", "remove/").status_code == 302
    assert nina.get("/").status_code == 401
    assert User.objects.filter(username="nina").exists()
    with scope(tenant_id=people.acme.pk, tags=None):
        assert not Membership.objects.filter(user__username="nina").exists()
        assert AuditEvent.objects.filter(action="member.remove", actor_name="ada").count() == 1


def test_the_last_who_manages_stays_and_the_page_says_why(people: People) -> None:
    ada = session_client("ada")
    for what, form in (
        ("", {"status": "suspended"}),
        ("", {"role": role(people, "helpdesk").pk}),
        ("remove/", {}),
    ):
        response = post(ada, people, "ada", what, **form)
        assert response.status_code == 409 and "last member who manages" in response.content.decode()
        part = ada.post(f"/members/{member(people, 'ada').pk}/{what}", form, headers=HTMX)
        assert part.status_code == 409 and "last member who manages" in part.content.decode()
        assert "selected>admin" in part.content.decode(), "the list shows what holds"
    assert member(people, "ada").is_active and member(people, "ada").role.name == "admin"


def test_what_makes_no_sense_is_refused(people: People) -> None:
    ada = session_client("ada")
    with scope(tenant_id=people.globex.pk, tags=None):
        foreign = Role.objects.get(name="admin").pk
    for form in ({}, {"status": "gone"}, {"role": "x"}, {"role": foreign}):
        assert post(ada, people, "nina", **form).status_code == 400, form
    assert member(people, "nina").role.name == "network_engineer"


def test_only_those_who_manage_and_only_their_own(people: People) -> None:
    nina, gus = session_client("nina"), session_client("gus")
    for path in ("", "remove/"):
        assert post(nina, people, "ada", path, status="suspended").status_code == 403
        assert post(gus, people, "ada", path, status="suspended").status_code == 404
        assert post(Client(), people, "ada", path, status="suspended").status_code == 302
    assert nina.get("/members/").status_code == 403 and Client().get("/members/").status_code == 302
    assert member(people, "ada").is_active
    response = session_client("ada", csrf=True).post(f"/members/{member(people, 'nina').pk}/remove/")
    assert response.status_code == 403, "without the form's token"


def test_names_are_shown_as_text(people: People) -> None:
    User.objects.filter(username="nina").update(email="<script>alert(1)</script>@example.com")
    page = session_client("ada").get("/members/").content.decode()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
