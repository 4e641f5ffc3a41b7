"""Django admin: every registered model, scoped to the tenant."""

from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from tenants.models import AuditEvent, Membership, Role
from tenants.scope import unscoped
from tests.cast import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def signed_in(username: str) -> Client:
    client = Client()
    assert client.login(username=username, password=PASSWORD)
    return client


def url_of(model: Any, what: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{what}", args=args)


def test_every_list_shows_the_own_tenants_rows_alone(cast: Any) -> None:
    cast.gina.client.post(
        "/api/v1/query", {"question": "What is the hold timer?"}, content_type="application/json"
    )
    ada, root = signed_in("ada"), signed_in("root")
    foreign = {}
    with unscoped(reason="tests"):
        for model in admin.site._registry:
            if any(field.name == "tenant" for field in model._meta.fields):
                foreign[model] = list(
                    model._default_manager.filter(tenant=cast.globex).values_list("pk", flat=True)[:3]
                )
    assert sum(bool(pks) for pks in foreign.values()) >= 8
    for model in admin.site._registry:
        listing = ada.get(url_of(model, "changelist"))
        if model not in foreign:
            assert listing.status_code == 403, model
        else:
            assert listing.status_code == 200, model
            for pk in foreign[model]:
                assert str(pk) not in listing.content.decode()
                # Django's admin answers a missing row with a redirect to its index and a message.
                assert ada.get(url_of(model, "change", pk)).status_code == 302
                assert root.get(url_of(model, "change", pk)).status_code == 200, model
        assert root.get(url_of(model, "changelist")).status_code == 200, model


def test_members_who_do_not_manage_and_keys_stay_outside(cast: Any) -> None:
    assert signed_in("nina").get("/admin/", follow=True).status_code == 403
    assert cast.ada.client.get("/admin/", follow=True).status_code == 403  # a token is not for clicking
    response = Client().get("/admin/", follow=True)
    assert response.redirect_chain[-1][0].startswith("/sign-in/?next=")


def test_changes_go_through_the_actions_and_are_audited(cast: Any) -> None:
    ada = signed_in("ada")
    with unscoped(reason="tests"):
        role = Role.objects.get(tenant=cast.acme, name="helpdesk")
        epoch = role.tenant.auth_epoch
    response = ada.post(
        url_of(Role, "change", role.pk), {"name": "helpdesk", "tags": "faq", "abilities": "ask"}
    )
    assert response.status_code == 302
    with unscoped(reason="tests"):
        role.refresh_from_db()
        assert role.tags == ["faq"]
        assert role.tenant.__class__.objects.get(pk=role.tenant_id).auth_epoch > epoch
        actions = set(
            AuditEvent.objects.filter(tenant=cast.acme, target_id=str(role.pk)).values_list(
                "action", flat=True
            )
        )
    assert {"role.change", "admin.change"} <= actions


def test_the_last_admin_cannot_be_suspended(cast: Any) -> None:
    ada = signed_in("ada")
    with unscoped(reason="tests"):
        member = Membership.objects.get(tenant=cast.acme, user__username="ada")
    response = ada.post(
        url_of(Membership, "change", member.pk),
        {"role": str(member.role_id), "status": "suspended"},
        follow=True,
    )
    assert "last member who manages" in response.content.decode()
    with unscoped(reason="tests"):
        member.refresh_from_db()
    assert member.is_active


def test_a_superusers_visit_is_audited(cast: Any) -> None:
    signed_in("root").get("/admin/")
    with unscoped(reason="tests"):
        assert AuditEvent.objects.filter(action="platform.unscoped", actor_name="root").exists()


def test_a_sources_schedule_is_seen_and_edited(cast: Any) -> None:
    from django_celery_beat.models import PeriodicTask

    from knowledge.ingestion.sources.folder import allowed_root
    from knowledge.models import Source

    (allowed_root() / "wiki").mkdir(parents=True, exist_ok=True)
    ada = signed_in("ada")
    form = {
        "name": "Wiki",
        "kind": "folder",
        "path": "wiki",
        "collection": str(cast.collections["acme"].pk),
        "tags": "runbooks",
        "enabled": "on",
        "schedule": "*/15 * * * *",
        "time_zone": "Europe/Berlin",
    }
    assert ada.post(url_of(Source, "add"), form).status_code == 302
    with unscoped(reason="tests"):
        source = Source.objects.get(tenant=cast.acme, name="Wiki")
    task = PeriodicTask.objects.get(name=f"sync source {source.pk}")
    assert str(task.crontab.timezone) == "Europe/Berlin" and task.crontab.minute == "*/15"
    assert "*/15 * * * *" in ada.get(url_of(Source, "changelist")).content.decode()
    changed = ada.post(url_of(Source, "change", source.pk), form | {"schedule": "5 4 * * *"})
    assert changed.status_code == 302
    task.refresh_from_db()
    assert (task.crontab.minute, task.crontab.hour) == ("5", "4")
    wrong = ada.post(url_of(Source, "change", source.pk), form | {"schedule": "often"}, follow=True)
    assert "five fields" in wrong.content.decode()
    ada.post(url_of(Source, "change", source.pk), form | {"schedule": ""})
    assert not PeriodicTask.objects.filter(name=f"sync source {source.pk}").exists()
