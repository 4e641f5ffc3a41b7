"""People and the tenant, as admins and newcomers do it: invitations, passwords, roles, keys, the log, the costs."""

import csv
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.core import mail
from django.utils import timezone
from playwright.sync_api import expect

from tenants.models import Role, UsageRecord
from tenants.people import add_member
from tenants.scope import scope
from tests.browser.chromium import DESKTOP, PHONE
from tests.browser.conftest import Visitor
from tests.cast import PASSWORD
from tests.tenants.conftest import tasks_at_once  # noqa: F401 (a fixture)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
    pytest.mark.usefixtures("tasks_at_once"),
]
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
NEW = "correct-horse-battery"


def name_of(size: tuple[int, int]) -> str:
    return "phone" if size == PHONE else "desktop"


def link_in_mail(path: str) -> str:
    found = re.search(rf"http://[^\s]+{path}\?\S+", str(mail.outbox[-1].body))
    assert found, mail.outbox[-1].body
    return found.group(0)


def row_of(visitor: Visitor, name: str) -> Any:
    return visitor.page.locator("tr", has=visitor.page.locator("strong", has_text=re.compile(f"^{name}$")))


@SIZES
def test_from_an_invitation_to_the_first_question(visit: Any, size: tuple[int, int]) -> None:
    ada = visit(size=size).sign_in("ada")
    ada.go("/members/")
    ada.page.get_by_text("Invite people").click()
    ada.page.get_by_label("E-mail addresses").fill("neil@example.com, olga@example.com")
    ada.page.locator("#invite-role").select_option(label="helpdesk")
    ada.shoot(f"members-invite-{name_of(size)}")
    ada.page.get_by_role("button", name="Invite", exact=True).click()
    expect(ada.page.get_by_text("2 invitations are on their way.")).to_be_visible()
    expect(row_of(ada, "neil@example.com")).to_contain_text("invited")
    assert not ada.scrolls_sideways()
    ada.shoot(f"members-{name_of(size)}")

    mail.outbox.sort(key=lambda message: message.to, reverse=True)
    link = link_in_mail("/join/")
    assert mail.outbox[-1].to == ["neil@example.com"]
    neil = visit(size=size)
    neil.page.goto(link)
    expect(neil.page.get_by_role("heading", level=1)).to_have_text("Join Acme")
    neil.shoot(f"join-{name_of(size)}")
    neil.page.get_by_label("User name").fill("neil")
    neil.page.get_by_label("Password").fill(NEW)
    neil.page.get_by_role("button", name="Make the account and join").click()
    expect(neil.page.get_by_text("Welcome to Acme.")).to_be_visible()
    neil.ask("What is the hold timer on edge routers?")
    expect(neil.wait_for_answer()).to_contain_text("30 seconds")

    # In the list now; moved to another role and suspended without leaving the page.
    ada.page.reload()
    row = row_of(ada, "neil")
    expect(row).to_contain_text("active")
    expect(row.get_by_role("button", name="Save the role of neil")).to_be_hidden()
    row.get_by_label("Role of neil", exact=True).select_option(label="security_analyst")
    row.get_by_role("button", name="Save the role of neil").click()
    expect(ada.page.get_by_text("neil is security_analyst now.")).to_be_visible()
    expect(row.get_by_label("Role of neil", exact=True).locator("option:checked")).to_have_text(
        "security_analyst"
    )
    row.get_by_role("button", name="Suspend neil").click()
    expect(row).to_contain_text("suspended")
    expect(row.get_by_role("button", name="Let neil in")).to_be_focused()
    neil.page.goto(neil.site + "/account/")
    expect(neil.page.get_by_text("You have been signed out")).to_be_visible()
    neil.complaints.clear()  # the browser tells of the 401
    row.locator("summary", has_text="Remove").click()
    row.get_by_role("button", name="Remove neil").click()
    expect(row).to_have_count(0)
    ada.page.get_by_label("Search").first.fill("olga")
    expect(ada.page.locator("#list tbody tr")).to_have_count(1)
    assert "q=olga" in ada.page.url


def test_inviting_and_accepting_need_no_script(visit: Any) -> None:
    ada = visit(javascript=False).sign_in("ada")
    ada.go("/members/")
    ada.page.locator("summary", has_text="Invite people").click()
    ada.page.get_by_label("E-mail addresses").fill("neil@example.com")
    ada.page.locator("#invite-role").select_option(label="helpdesk")
    ada.page.get_by_role("button", name="Invite", exact=True).click()
    expect(row_of(ada, "neil@example.com")).to_be_visible()
    gina = visit(javascript=False).sign_in("gina")
    gina.page.goto(link_in_mail("/join/"))
    gina.page.get_by_role("button", name="Accept as gina").click()
    gina.go("/account/")
    expect(gina.page.locator("table")).to_contain_text("Acme")
    ada.go("/members/?q=gina")
    row_of(ada, "gina").get_by_label("Role of gina", exact=True).select_option(label="management")
    row_of(ada, "gina").get_by_role("button", name="Save the role of gina").click()
    assert ada.page.url.endswith("/members/?q=gina")
    expect(row_of(ada, "gina").locator("select option:checked")).to_have_text("management")


@SIZES
def test_a_forgotten_password(visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size)
    nina.go("/sign-in/")
    nina.page.get_by_role("link", name="Forgotten your password?").click()
    nina.page.get_by_label("E-mail address").fill("nina@acme.example")
    nina.shoot(f"forgotten-{name_of(size)}")
    nina.page.get_by_role("button", name="Send the link").click()
    expect(nina.page.get_by_role("status").filter(has_text="a link to a new password")).to_be_visible()
    nina.page.goto(link_in_mail("/password/new/"))
    nina.page.get_by_label("New password").fill(NEW)
    nina.shoot(f"new-password-{name_of(size)}")
    nina.page.get_by_role("button", name="Save").click()
    expect(nina.page.get_by_text("Your password is new. Sign in with it.")).to_be_visible()
    nina.page.get_by_label("User name").fill("nina")
    nina.page.get_by_label("Password").fill(NEW)
    nina.page.get_by_role("button", name="Sign in").click()
    nina.page.wait_for_url(nina.site + "/")
    nina.go("/account/")
    assert not nina.scrolls_sideways()
    nina.shoot(f"account-{name_of(size)}")


@SIZES
def test_a_change_of_the_matrix_holds_on_the_next_request(
    visit: Any, cast: Any, size: tuple[int, int]
) -> None:
    runbook = f"/documents/{cast.documents['acme']['bgp-session-down.md'].pk}/"
    hal = visit(size=size, lenient=True).sign_in("hal")
    hal.go(runbook)
    expect(hal.page.get_by_role("heading", level=1)).to_have_text("BGP session down")

    ada = visit(size=size).sign_in("ada")
    ada.go("/roles/")
    save = ada.page.get_by_role("button", name="Save", exact=True)
    expect(save).to_be_hidden()
    if size == PHONE:  # one role at a time
        expect(ada.page.locator("thead th[data-role]:visible")).to_have_text(["admin"])
        ada.page.locator("[data-choose]", has_text="helpdesk").click()
        expect(ada.page.locator("thead th[data-role]:visible")).to_have_text(["helpdesk"])
    tick = ada.page.get_by_label("helpdesk: runbooks")
    tick.uncheck()
    expect(ada.page.locator("[data-unsaved-list]").first).to_have_text("helpdesk: −runbooks")
    ada.page.get_by_label("helpdesk: standards").check()
    expect(ada.page.locator("[data-unsaved-list]").first).to_have_text("helpdesk: −runbooks, +standards")
    ada.shoot(f"roles-unsaved-{name_of(size)}")
    ada.page.get_by_role("button", name="Undo").first.click()
    expect(save).to_be_hidden()
    expect(tick).to_be_checked()
    tick.uncheck()
    save.click()
    expect(ada.page.get_by_text("Saved: helpdesk −runbooks.")).to_be_visible()
    expect(save).to_be_hidden()
    assert not ada.scrolls_sideways()
    ada.shoot(f"roles-{name_of(size)}")
    hal.page.reload()
    expect(hal.page.get_by_role("heading", level=1)).to_have_text(
        "There is nothing here, or you may not see it."
    )

    # A role of one's own, and what it would see.
    ada.page.locator("summary", has_text="New role").click()
    ada.page.locator("#new-name").fill("night shift")
    ada.page.get_by_label("Begin with what another reads and may do").select_option(label="helpdesk")
    ada.page.get_by_role("button", name="Make the role").click()
    expect(row_of(ada, "night shift")).to_be_visible()
    row_of(ada, "night shift").get_by_role("link", name=re.compile("What would this role see")).click()
    expect(ada.page.get_by_role("heading", level=1)).to_contain_text("night shift")


@SIZES
def test_a_key_is_shown_once_and_works(visit: Any, size: tuple[int, int]) -> None:
    ada = visit(size=size).sign_in("ada")
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ada.go("/api-keys/")
    expect(ada.page.get_by_text("No keys.")).to_be_visible()
    ada.page.get_by_text("New key").click()
    ada.page.get_by_label("Name", exact=True).fill("monitoring")
    ada.page.get_by_label("a new service account").check()
    ada.page.get_by_label("Its name").fill("prometheus")
    ada.page.get_by_label("Its role").select_option(label="helpdesk")
    ada.page.get_by_label("ask questions").check()
    ada.shoot(f"keys-new-{name_of(size)}")
    ada.page.get_by_role("button", name="Make the key").click()
    raw = ada.page.locator(".secret code").inner_text()
    ada.page.get_by_role("button", name="Copy").click()
    expect(ada.page.get_by_role("button", name="Copied")).to_be_visible()
    assert ada.page.evaluate("navigator.clipboard.readText()") == raw
    assert not ada.scrolls_sideways()
    ada.shoot(f"keys-shown-{name_of(size)}")

    def ask_who() -> httpx.Response:
        return httpx.get(f"{ada.site}/api/v1/me", headers={"authorization": f"Bearer {raw}"})

    me = ask_who()
    assert (
        me.status_code == 200 and me.json()["username"] == "prometheus" and me.json()["abilities"] == ["ask"]
    )
    ada.page.get_by_role("link", name="Live").click()
    expect(row_of(ada, "monitoring")).to_contain_text("prometheus")
    assert raw.partition(".")[2] not in ada.page.content()
    ada.page.go_back()
    assert raw.partition(".")[2] not in ada.page.content(), "“back” finds nothing"
    ada.complaints.clear()  # the browser may say that it would have to send the form again
    ada.go("/api-keys/")
    row_of(ada, "monitoring").locator("summary").click()
    ada.shoot(f"keys-revoke-{name_of(size)}")
    row_of(ada, "monitoring").get_by_role("button", name="Revoke monitoring").click()
    expect(ada.page.get_by_text("The key monitoring is revoked.")).to_be_visible()
    expect(row_of(ada, "monitoring")).to_have_count(0)
    assert ask_who().status_code == 401


@SIZES
def test_the_log_is_narrowed_read_and_exported(visit: Any, size: tuple[int, int], tmp_path: Any) -> None:
    hal = visit(size=size, lenient=True).sign_in("hal")
    hal.ask("What is the hold timer on edge routers?")
    hal.wait_for_answer()
    ada = visit(size=size).sign_in("ada")
    ada.go("/audit/")
    expect(ada.page.locator("tbody tr").first).to_contain_text("signed in")
    ada.page.get_by_label("Who").fill("hal")
    ada.page.get_by_role("button", name="Show").click()
    expect(ada.page.locator("tbody tr").first).to_contain_text("asked a question")
    assert set(ada.page.locator("tbody tr td:nth-child(2) a").all_inner_texts()) == {"hal"}
    ada.page.locator("tbody tr details").first.locator("summary").click()
    expect(ada.page.locator("tbody tr details").first).to_contain_text("request")
    assert not ada.scrolls_sideways()
    ada.shoot(f"audit-{name_of(size)}")
    with ada.page.expect_download() as download:
        ada.page.get_by_role("link", name="CSV").click()
    download.value.save_as(tmp_path / "log.csv")
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert {row["actor"] for row in rows} == {"hal"} and "question.ask" in {row["action"] for row in rows}
    ada.go("/audit/?action=audit.export")
    expect(ada.page.locator("tbody tr")).to_have_count(1)
    expect(ada.page.locator("tbody tr .facts").last).to_have_text(re.compile(r"actor\s*hal\s*format\s*csv"))


def spend(cast: Any) -> None:
    """One call of nina's or hal's on each of thirty days, ten of them hal's."""
    with scope(tenant_id=cast.acme.pk, tags=None):
        for number in range(30):
            row = UsageRecord.objects.create(
                user=cast.nina.membership.user if number % 3 else cast.hal.membership.user,
                request_id=uuid4(),
                endpoint="query",
                provider="anthropic",
                model="claude-sonnet-5-5" if number % 4 else "claude-haiku-5-5",
                kind="answer",
                status="success",
                input_tokens=1000 + number,
                output_tokens=100,
                cost_usd=Decimal("0.01") * (number + 1),
            )
            then = timezone.now() - timedelta(days=number)
            UsageRecord.objects.filter(pk=row.pk).update(created_at=then)


@SIZES
def test_costs_at_a_glance_and_down_to_the_call(
    visit: Any, cast: Any, in_thread: Any, size: tuple[int, int]
) -> None:
    in_thread(lambda: spend(cast))
    mona = visit(size=size, dark=True).sign_in("mona")  # sees costs, manages nothing
    mona.page.get_by_role("link", name="Costs").click()
    mona.page.get_by_role("link", name="30 days").click()
    figure = mona.page.locator(".figure", has_text="Cost").first
    expect(figure).to_contain_text("$4.65")
    expect(mona.page.locator(".figure", has_text="Answered")).to_be_visible()  # brought by htmx
    expect(mona.page.get_by_role("img", name=re.compile("Costs by day"))).to_be_visible()
    assert not mona.scrolls_sideways()
    mona.shoot(f"usage-{name_of(size)}")
    mona.page.get_by_role("link", name="hal").click()
    expect(mona.page.get_by_role("heading", level=1)).to_have_text("Model calls")
    expect(mona.page.locator("tbody tr")).to_have_count(10)
    assert not mona.scrolls_sideways()
    mona.shoot(f"usage-calls-{name_of(size)}")
    mona.page.get_by_role("link", name="Back to the period").click()
    expect(mona.page.get_by_role("heading", level=1)).to_have_text("Usage and costs")


def join_globex(cast: Any) -> None:
    with scope(tenant_id=cast.globex.pk, tags=None):
        add_member(user=cast.ada.membership.user, role=Role.objects.get(name="admin"))


@SIZES
def test_going_over_to_another_tenant_by_keyboard(
    visit: Any, cast: Any, in_thread: Any, size: tuple[int, int]
) -> None:
    in_thread(lambda: join_globex(cast))
    ada = visit(size=size)
    ada.go("/sign-in/")
    ada.page.get_by_label("User name").fill("ada")
    ada.page.get_by_label("Password").fill(PASSWORD)
    ada.page.get_by_role("button", name="Sign in").click()
    ada.page.get_by_role("button", name=re.compile("Acme")).click()
    ada.page.wait_for_url(ada.site + "/")
    ada.go("/members/")
    menu = ada.page.locator(".menu > summary")
    menu.focus()
    ada.page.keyboard.press("Enter")
    choice = ada.page.get_by_label("Tenant")
    expect(choice).to_be_visible()
    ada.page.keyboard.press("Tab")
    expect(choice).to_be_focused()
    ada.page.keyboard.type("Globex")
    expect(choice.locator("option:checked")).to_have_text("Globex")
    ada.shoot(f"tenant-switcher-{name_of(size)}")
    assert not ada.scrolls_sideways()
    ada.page.keyboard.press("Tab")
    ada.page.keyboard.press("Enter")
    expect(menu).to_contain_text("Globex")
    assert ada.page.url == ada.site + "/members/", "the same kind of page"
    expect(row_of(ada, "gina")).to_be_visible()
    expect(row_of(ada, "nina")).to_have_count(0)


def test_settings_and_time_zone(visit: Any) -> None:
    ada = visit().sign_in("ada")
    ada.go("/settings/")
    ada.page.get_by_label("Time zone").fill("Asia/Kolkata")
    ada.page.get_by_label("Name", exact=True).fill("Acme Logistics")
    ada.page.get_by_role("button", name="Save").click()
    expect(ada.page.get_by_text("The settings are saved.")).to_be_visible()
    expect(ada.page.get_by_text("in Asia/Kolkata.")).to_be_visible()
    expect(ada.page.locator(".menu-tenant")).to_have_text("Acme Logistics")
    ada.shoot("settings-desktop")
