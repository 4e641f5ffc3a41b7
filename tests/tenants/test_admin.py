"""Django admin: every registered model, by everybody who may enter, and what they do there."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from feedback.models import DocumentRequest, Feedback, Review
from knowledge.ingestion.sources.folder import allowed_root
from knowledge.models import (
    Answer,
    Conversation,
    ConversationShare,
    Corpus,
    Document,
    Embedding,
    EvaluationCase,
    ExpiredItem,
    IndexDay,
    Job,
    Price,
    Source,
    TagSet,
)
from tenants.models import (
    ApiKey,
    AuditEvent,
    IdempotentRequest,
    Invitation,
    Membership,
    Reservation,
    Role,
    Spending,
    Tenant,
    User,
)
from tenants.scope import unscoped
from tests.security.helpers import fingerprint, read_body, signature, tenant_models
from tests.tenants.admin_cast import (
    PLATFORM,
    Everything,
    is_of_tenant,
    make_everything,
    operator,
    registered,
    signed_in,
    url_of,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

PLATFORM_MODELS = {Tenant, User, Price, PeriodicTask, CrontabSchedule, IntervalSchedule}
FOR_REVIEWERS = {Feedback, Review, DocumentRequest, Answer}
# What is no list of its own: a number, and what answers tell already.
NOT_SHOWN = {
    Corpus,
    Conversation,
    ConversationShare,
    Embedding,
    EvaluationCase,
    ExpiredItem,
    IdempotentRequest,
    IndexDay,
    Reservation,
    Spending,
    TagSet,
}


@pytest.fixture
def everything(cast: Any) -> Everything:
    return make_everything(cast)


def readers(cast: Any) -> Iterator[tuple[str, Client, str, set[Any]]]:
    """Name, client, whose rows they see, and of which models."""
    of_tenant = {model for model in registered() if is_of_tenant(model)}
    yield "ada", signed_in("ada"), "acme", of_tenant
    yield "gus", signed_in("gus"), "globex", of_tenant
    yield "rita", signed_in("rita"), "acme", FOR_REVIEWERS
    yield "root in acme", operator(cast.acme), "acme", of_tenant
    yield "root", operator(), PLATFORM, PLATFORM_MODELS | {AuditEvent}


def test_every_model_of_a_tenant_is_registered_or_left_out_on_purpose() -> None:
    of_tenant = {model for model in registered() if is_of_tenant(model)}
    assert set(tenant_models()) - NOT_SHOWN == of_tenant
    assert {model for model in registered() if not is_of_tenant(model)} == PLATFORM_MODELS


def test_every_list_shows_everybody_their_own_rows_alone(cast: Any, everything: Everything) -> None:
    for name, client, slug, models in readers(cast):
        for model in registered():
            listing = client.get(url_of(model, "changelist"))
            if model not in models:
                assert listing.status_code == 403, (name, model)
                continue
            assert listing.status_code == 200, (name, model)
            text = listing.content.decode()
            for owner, ids in everything.ids[model].items():
                shown = [pk for pk in ids if url_of(model, "change", pk) in text]
                if owner != slug:
                    assert not shown, (name, model)
                elif model is not AuditEvent:  # what happened since is newer
                    assert shown, (name, model)


def test_a_row_that_is_not_ones_own_is_answered_like_an_absent_one(cast: Any, everything: Everything) -> None:
    before = {tenant: fingerprint(tenant.pk) for tenant in cast.tenants.values()}
    unlike = {"tenants_auditevent"}  # the attempts themselves are told there
    for name, client, slug, models in readers(cast):
        for model in registered():
            own = [pk for pk in everything.of(model, slug) if model in models]
            every = [pk for ids in everything.ids[model].values() for pk in ids]
            foreign = next((pk for pk in every if pk not in own), None)
            if model is AuditEvent and slug == PLATFORM:
                own = []
            if own:
                assert client.get(url_of(model, "change", own[0])).status_code == 200, (name, model)
                assert client.get(url_of(model, "history", own[0])).status_code == 200, (name, model)
            if foreign is None:
                continue
            absent = 10**9 if isinstance(foreign, int) else uuid.uuid4()
            for what in ("change", "delete", "history"):
                for method in ("get", "post"):
                    told, expected = (
                        ask(client, method, url_of(model, what, pk), pk) for pk in (foreign, absent)
                    )
                    assert told == expected, (name, model, what, method)
                    assert told[0] in (403, 404, 405), (name, model, what, method)
    for tenant, rows in before.items():
        after = fingerprint(tenant.pk)
        assert {table for table in rows if rows[table] != after[table]} <= unlike


def ask(client: Client, method: str, path: str, pk: Any) -> Any:
    return signature(getattr(client, method)(path, {"post": "yes"}), hiding=(f"/{pk}/",))


def test_no_action_and_no_export_reaches_a_row_that_is_not_ones_own(
    cast: Any, everything: Everything
) -> None:
    before = {tenant: fingerprint(tenant.pk) for tenant in cast.tenants.values()}
    tried = set()
    for name, client, slug, models in readers(cast):
        for model in registered():
            foreign = [pk for owner, ids in everything.ids[model].items() if owner != slug for pk in ids]
            whole = client.get(url_of(model, "export"))
            if model not in models:
                assert whole.status_code == 403, (name, model)
                assert client.post(url_of(model, "changelist")).status_code == 403, (name, model)
                continue
            text = read_whole(whole)
            assert whole.status_code == 200 and text.count("\n") >= 1, (name, model)
            for pk in foreign:
                assert str(pk) not in text or isinstance(pk, int), (name, model)
            actions = admin.site._registry[model].actions
            for action in ("export_selected", "delete_selected", *(actions or ())):
                sent = {"action": action, "_selected_action": foreign, "select_across": "1", "post": "yes"}
                response = client.post(url_of(model, "changelist"), sent)
                assert response.status_code in (200, 302), (name, model, action)
                if action == "export_selected" and foreign:
                    assert read_whole(response).strip().count("\n") == 0, (name, model)  # the header alone
                tried.add(action)
    assert {"export_selected", "delete_selected", "cancel", "resolve", "revoke", "sync"} <= tried
    for tenant, rows in before.items():
        after = fingerprint(tenant.pk)
        # Exports of nothing are told, and the platform's own actions name no tenant here.
        assert {table for table in rows if rows[table] != after[table]} <= {"tenants_auditevent"}


def read_whole(response: Any) -> str:
    return b"".join(response).decode() if response.streaming else read_body(response).decode()


def test_completion_offers_rows_of_ones_own_alone(cast: Any, everything: Everything) -> None:
    fields = [
        (model, field)
        for model, model_admin in admin.site._registry.items()
        for field in model_admin.autocomplete_fields
    ]
    assert len(fields) >= 3
    for name, client, slug, models in readers(cast):
        for model, field in fields:
            remote = model._meta.get_field(field).remote_field.model
            query = {
                "app_label": model._meta.app_label,
                "model_name": model._meta.model_name,
                "field_name": field,
            }
            response = client.get(reverse("admin:autocomplete"), query)
            if remote not in models:
                assert response.status_code == 403, (name, model, field)
                continue
            offered = {each["id"] for each in response.json()["results"]}
            own = {str(pk) for pk in everything.of(remote, slug)}
            assert offered and offered <= own, (name, model, field)


def test_a_reviewer_changes_reviews_and_requests_alone(cast: Any, everything: Everything) -> None:
    rita = signed_in("rita")
    for model in FOR_REVIEWERS:
        page = rita.get(url_of(model, "change", everything.of(model, "acme")[0]))
        may_save = b'name="_save"' in page.content or b'name="_next"' in page.content
        assert may_save == (model in (Review, DocumentRequest)), model
        assert rita.get(url_of(model, "add")).status_code == 403, model
        assert rita.post(url_of(model, "delete", everything.of(model, "acme")[0])).status_code == 403
    sidebar = rita.get("/admin/").content.decode()
    for model in registered():
        assert (f'href="{url_of(model, "changelist")}"' in sidebar) == (model in FOR_REVIEWERS), model
    assert rita.get(reverse("admin:costs")).status_code == 403


def test_a_reviewer_sees_answers_and_not_what_they_cost(cast: Any, everything: Everything) -> None:
    rita, ada = signed_in("rita"), signed_in("ada")
    answer = everything.of(Answer, "acme")[0]
    for path in (url_of(Answer, "changelist"), url_of(Answer, "change", answer)):
        assert "unpriced" in ada.get(path).content.decode()
        assert "unpriced" not in rita.get(path).content.decode()
    assert "Cost usd" in read_whole(ada.get(url_of(Answer, "export")))
    assert "Cost usd" not in read_whole(rita.get(url_of(Answer, "export")))


def test_members_without_either_ability_and_keys_stay_outside(cast: Any) -> None:
    assert signed_in("nina").get("/admin/", follow=True).status_code == 403
    assert cast.ada.client.get("/admin/", follow=True).status_code == 403  # a token is not for clicking
    response = Client().get("/admin/", follow=True)
    assert response.redirect_chain[-1][0].startswith("/sign-in/?next=")


def test_changes_go_through_the_actions_and_are_audited(cast: Any) -> None:
    for client, who in ((signed_in("ada"), "ada"), (operator(cast.acme), "root")):
        with unscoped(reason="tests"):
            role = Role.objects.get(tenant=cast.acme, name="helpdesk")
            epoch = Tenant.objects.get(pk=cast.acme.pk).auth_epoch
        form = {"name": "helpdesk", "tags": f"faq,of-{who}", "abilities": "ask"}
        assert client.post(url_of(Role, "change", role.pk), form).status_code == 302
        with unscoped(reason="tests"):
            role.refresh_from_db()
            assert role.tags == ["faq", f"of-{who}"]
            assert Tenant.objects.get(pk=cast.acme.pk).auth_epoch > epoch
            told = AuditEvent.objects.filter(tenant=cast.acme, target_id=str(role.pk), actor_name=who)
            assert {"role.change", "admin.change"} <= set(told.values_list("action", flat=True))


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


def test_a_role_in_use_is_not_deleted_and_a_document_is_only_hidden(cast: Any) -> None:
    ada = signed_in("ada")
    with unscoped(reason="tests"):
        role = Role.objects.get(tenant=cast.acme, name="helpdesk")
    response = ada.post(url_of(Role, "delete", role.pk), {"post": "yes"}, follow=True)
    assert "give them another first" in response.content.decode()
    document = cast.documents["acme"]["vpn-faq.md"]
    assert ada.post(url_of(Document, "delete", document.pk), {"post": "yes"}).status_code == 302
    with unscoped(reason="tests"):
        assert Role.objects.filter(pk=role.pk).exists()
        assert Document.objects.get(pk=document.pk).deleted_at is not None


def test_a_sources_schedule_is_seen_and_edited(cast: Any) -> None:
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


def test_actions_do_what_they_say_to_ones_own_rows(cast: Any, everything: Everything) -> None:
    """The control of those that reach no foreign row."""
    ada, rows = signed_in("ada"), everything.rows["acme"]

    def act(model: Any, action: str, pk: Any, client: Client = ada) -> str:
        sent = {"action": action, "_selected_action": [str(pk)]}
        return str(client.post(url_of(model, "changelist"), sent, follow=True).content.decode())

    assert "1 job cancelled." in act(Job, "cancel", rows.job)
    assert "1 job started again." in act(Job, "retry", rows.job)
    assert "1 key revoked." in act(ApiKey, "revoke", rows.api_key)
    assert "1 invitation revoked." in act(Invitation, "revoke", everything.of(Invitation, "acme")[0])
    exported = ada.post(
        url_of(Role, "changelist"), {"action": "export_selected", "_selected_action": [str(rows.role)]}
    )
    assert read_whole(exported).splitlines()[1:] == ["auditor,audits,,no"]
    root = operator()
    act(Tenant, "suspend", cast.globex.pk, root)
    assert signed_in("gus").get("/admin/").status_code == 302
    act(Tenant, "resume", cast.globex.pk, root)
    assert signed_in("gus").get("/admin/").status_code == 200
    with unscoped(reason="tests"):
        assert Job.objects.get(pk=rows.job).state == "CANCELLED"
        assert ApiKey.objects.get(pk=rows.api_key).revoked_at is not None
        done = set(AuditEvent.objects.filter(tenant=cast.acme).values_list("action", flat=True))
    assert {"admin.cancel", "admin.retry", "api_key.revoke", "invitation.revoke", "admin.export"} <= done


def test_secrets_are_neither_shown_nor_guessed_at(cast: Any, everything: Everything) -> None:
    ada = signed_in("ada")
    with unscoped(reason="tests"):
        for model in registered():
            named = {field.name for field in model._meta.fields} & {"secret_hash", "current", "run"}
            for field in named:
                row = model._default_manager.filter(tenant=cast.acme).first()
                secret = str(getattr(row, field))
                for what, args in (("changelist", ()), ("change", (row.pk,))):
                    assert secret not in ada.get(url_of(model, what, *args)).content.decode(), model
                assert secret not in read_whole(ada.get(url_of(model, "export"))), model
                guess = ada.get(url_of(model, "changelist"), {f"{field}__startswith": secret[:1]})
                assert guess.status_code == 400, model
