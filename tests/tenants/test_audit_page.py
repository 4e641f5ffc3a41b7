"""The audit log's page: narrowed, paged, readable, exported; and as quick however long it is."""

import ast
import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.test import AsyncClient, Client
from django.utils import timezone

from knowledge.models import Document
from tenants import audit_log
from tenants.audit_log import Asked, read_log, stream_log
from tenants.audit_words import ACTIONS, facts_of, words_of
from tenants.models import AuditEvent, Role, Tenant
from tenants.people import add_member, create_user
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD
from tests.security.helpers import session_client
from tests.tenants.conftest import People
from tests.tenants.counting import queries_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
CHECKOUT = Path(__file__).parents[2]


def add(people: People, count: int = 1, *, at: datetime | None = None, **values: Any) -> list[AuditEvent]:
    with scope(tenant_id=people.acme.pk, tags=None):
        rows = AuditEvent.objects.bulk_create(
            AuditEvent(**{"action": "document.read", "actor_name": "nina", **values}) for _ in range(count)
        )
    start = at or timezone.now()
    with connections["platform"].cursor() as cursor:  # the application role may not change the log
        for number, row in enumerate(rows):
            cursor.execute(
                "UPDATE tenants_auditevent SET at = %s WHERE id = %s",
                [start - timedelta(seconds=number), row.pk],
            )
    return rows


def shown(client: Client, query: str = "") -> list[str]:
    """The actions on the page, newest first."""
    page = client.get(f"/audit/?{query}")
    assert page.status_code == 200, page.content
    return re.findall(r"<summary>[^<]*<code>([a-z_.]+)</code>", page.content.decode())


def export(client: Client, query: str = "") -> Any:
    """The answer and its body."""

    async def fetch() -> tuple[Any, str]:
        inner = AsyncClient()
        inner.cookies = client.cookies
        response: Any = await inner.get(f"/audit/export/?{query}")
        body = (
            b"".join([part async for part in response.streaming_content])
            if response.streaming
            else response.content
        )
        return response, body.decode()

    return async_to_sync(fetch)()


def test_the_newest_come_first_and_pages_follow_each_other(people: People) -> None:
    ada = session_client("ada")
    old = timezone.now() - timedelta(days=3)
    rows = add(people, 120, at=old)
    seen, query = [], ""
    for _ in range(10):
        page = ada.get(f"/audit/{query}").content.decode()
        seen += [str(row.pk) for row in rows if str(row.pk) in page] and re.findall(
            r'data-event="([0-9a-f-]{36})"', page
        )
        following = re.search(r'href="(?:/audit/)?(\?[^"]*after=[^"]+)"', page)
        if not following:
            break
        query = following.group(1).replace("&amp;", "&")
    ours = [pk for pk in seen if pk in {str(row.pk) for row in rows}]
    assert ours == [str(row.pk) for row in rows]
    assert len(seen) == len(set(seen))


def test_it_is_narrowed_by_action_actor_target_period_and_text(people: People) -> None:
    ada = session_client("ada")
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    add(people, action="member.change", actor_name="nina", target_id="t-1", at=noon, detail={"user": "Zoë"})
    add(people, action="member.remove", actor_name="gone", target_id="t-1", at=noon - timedelta(days=5))
    add(people, action="document.erase", actor_name="nina", target_id="t-2", at=noon - timedelta(days=9))
    assert shown(ada, "action=member.change") == ["member.change"]
    assert shown(ada, "action=member.&from=2026-03-01&to=2026-03-31") == ["member.change", "member.remove"]
    assert shown(ada, "action=memb") == []
    assert shown(ada, "actor=gone") == ["member.remove"]
    assert shown(ada, "target=t-1") == ["member.change", "member.remove"]
    assert shown(ada, "from=2026-03-10&to=2026-03-10") == ["member.change"]
    assert shown(ada, "from=2026-03-05&to=2026-03-10") == ["member.change", "member.remove"]
    assert shown(ada, "to=2026-03-04") == ["document.erase"]
    assert shown(ada, "text=zoë") == ["member.change"]
    assert shown(ada, "text=erase&actor=nina") == ["document.erase"]
    assert shown(ada, "text=%25%25") == []
    assert "Nothing fits" in ada.get("/audit/?actor=nobody").content.decode()


def test_days_are_the_tenants(people: People) -> None:
    with unscoped(reason="tests"):
        Tenant.objects.filter(pk=people.acme.pk).update(time_zone="Pacific/Auckland")
    late = datetime(2026, 3, 10, 13, tzinfo=UTC)  # the 11th in Auckland
    add(people, action="document.erase", at=late)
    ada = session_client("ada")
    assert shown(ada, "from=2026-03-11&to=2026-03-11") == ["document.erase"]
    assert shown(ada, "from=2026-03-10&to=2026-03-10") == []
    assert "11 Mar, 02:00:00" in ada.get("/audit/?to=2026-03-11").content.decode()


@pytest.mark.parametrize(
    "query", ["from=x", "from=2026-02-30", "to=0001-01-01", "from=2026-03-02&to=2026-03-01", "after=nonsense"]
)
def test_what_is_no_period_or_page_is_said(people: People, query: str) -> None:
    response = session_client("ada").get(f"/audit/?{query}")
    assert response.status_code == 400 and "log-line" in response.content.decode()


def test_a_text_is_looked_for_window_by_window(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there costs one window, however long the log is; the page says how far it has looked."""
    monkeypatch.setattr(audit_log, "WINDOW", 50)
    (needle,) = add(
        people, action="document.erase", detail={"title": "needle"}, at=timezone.now() - timedelta(days=9)
    )
    add(people, 120, at=timezone.now() - timedelta(days=1))
    ada = session_client("ada")
    page = ada.get("/audit/?text=needle").content.decode()
    assert "Nothing since" in page and "Search further back" in page
    with scope(tenant_id=people.acme.pk, tags=None):
        events = AuditEvent.objects.all()
        found = read_log(events, Asked(text="needle"), reader=people.ada.membership)
        looks = 1
        while found.next and not found.rows:
            found = read_log(events, Asked(text="needle"), reader=people.ada.membership, after=found.next)
            looks += 1
        assert [row.pk for row in found.rows] == [needle.pk] and looks == 3
        assert [row.pk for row in stream_log(events, Asked(text="needle"), reader=people.ada.membership)] == [
            needle.pk
        ]


def test_what_it_says_of_a_document_is_for_those_who_may_read_that(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        role = Role.objects.create(name="operator", tags=["runbooks"], abilities=["manage"])
        add_member(user=create_user(username="olga", password=PASSWORD, check_password=False), role=role)
        documents = {row.uri: row for row in Document.objects.all()}
    add(people, action="collection.delete", target_type="collection", target_id="1", detail={"slug": "plans"})
    for uri in ("runbook", "incident", "untagged"):
        row = documents[uri]
        add(people, action="document.read", **target_of(row), detail={"title": f"title of {uri}"})
    with scope(tenant_id=people.acme.pk, tags=None):
        documents["incident"].delete()  # erased: of what it was nobody knows any more who may read it
    olga, ada = session_client("olga"), session_client("ada")

    def told(client: Client) -> list[set[str]]:
        """By every way to the log."""
        admin = "/admin/tenants/auditevent/"
        with scope(tenant_id=people.acme.pk, tags=None):
            pks = list(AuditEvent.objects.filter(action="document.read").values_list("pk", flat=True))
        texts = [
            client.get("/api/v1/audit").content.decode(),
            client.get("/audit/").content.decode(),
            export(client)[1],
            export(client, "format=jsonl")[1],
            "".join(client.get(f"{admin}{pk}/change/").content.decode() for pk in pks),
            b"".join(client.get(f"{admin}export/")).decode(),
        ]
        return [set(re.findall(r"title of (\w+)", text)) for text in texts]

    assert told(ada) == [{"runbook", "incident", "untagged"}] * 6
    assert told(olga) == [{"runbook"}] * 6
    # Nor can it be guessed by searching for it.
    assert shown(ada, "text=title of inc") == ["document.read"]
    assert shown(olga, "text=title of inc") == []
    assert shown(olga, "text=plans") == ["collection.delete"]


def target_of(document: Document) -> dict[str, str]:
    return {"target_type": "document", "target_id": str(document.pk)}


def test_every_event_is_exported_once_across_batches(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "EXPORT_BATCH", 7)
    monkeypatch.setattr(audit_log, "WINDOW", 10)
    rows = add(people, 40, detail={"word": "yes"}, at=timezone.now() - timedelta(days=1))
    with scope(tenant_id=people.acme.pk, tags=None):
        for asked in (Asked(actor="nina"), Asked(text="yes")):
            assert [
                row.pk for row in stream_log(AuditEvent.objects.all(), asked, reader=people.ada.membership)
            ] == [row.pk for row in rows]


def test_no_answer_counts_or_reads_the_whole_log(people: People) -> None:
    add(people, 60)
    ada = session_client("ada")
    from django.test.utils import CaptureQueriesContext

    for query in ("", "text=needle", "actor=nina", "action=member."):
        with CaptureQueriesContext(connections["default"]) as queries:
            assert ada.get(f"/audit/?{query}").status_code == 200
        about = [one["sql"] for one in queries if 'FROM "tenants_auditevent"' in one["sql"]]
        assert about and all("LIMIT" in sql and "COUNT(" not in sql for sql in about), query


def test_the_database_is_asked_as_often_for_fifty_as_for_five(people: People) -> None:
    ada = session_client("ada")
    add(people, 5)
    few = queries_of(lambda: ada.get("/audit/?action=document.read"))
    add(people, 80)
    assert queries_of(lambda: ada.get("/audit/?action=document.read")) == few <= 7


def test_the_planner_has_an_index_for_each_filter(people: People) -> None:
    """Among many rows none of the filters reads the whole log."""
    with connections["platform"].cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenants_auditevent (id, tenant_id, at, action, actor_name, role_name, method, target_type,"
            " target_id, detail, request_id) SELECT gen_random_uuid(), %s, now() - i * interval '1 minute',"
            " 'question.ask', 'u' || i %% 100, '', '', '', 't' || i %% 5000, '{}', '' FROM generate_series(1, 30000) i",
            [people.acme.pk],
        )
    with connections["owner"].cursor() as cursor:
        cursor.execute("ANALYZE tenants_auditevent")
    with scope(tenant_id=people.acme.pk, tags=None):
        for asked, index in (
            (Asked(), "audit_of_tenant"),
            (Asked(action="member.remove"), "audit_of_action"),
            (Asked(action="member."), "audit_of_action"),
            (Asked(actor="nobody-here"), "audit_of_actor"),
            (Asked(target="t-none"), "audit_of_target"),
        ):
            rows = audit_log.narrow(AuditEvent.objects.all(), asked).order_by("-at", "-id")[:51]
            plan = rows.explain()
            assert index in plan and "Seq Scan" not in plan, (asked, plan)


def test_the_export_is_csv_that_no_spreadsheet_runs(people: People) -> None:
    add(
        people,
        action="document.erase",
        actor_name="=cmd|' /C calc'!A0",
        target_id="+1",
        detail={"title": '=a,"b"'},
    )
    ada = session_client("ada")
    response, body = export(ada, "format=csv&action=document.erase")
    assert response.status_code == 200 and response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(
        r'attachment; filename="acme-audit-[\d-]+\.csv"', response.headers["Content-Disposition"]
    )
    (row,) = csv.DictReader(io.StringIO(body))
    assert row["actor"] == "'=cmd|' /C calc'!A0" and row["target_id"] == "'+1"
    assert json.loads(row["detail"]) == {"title": '=a,"b"'}
    assert row["action"] == "document.erase" and datetime.fromisoformat(row["at"]).tzinfo is not None


def test_the_export_as_json_lines_has_what_the_api_tells(people: People) -> None:
    (event,) = add(people, action="document.erase", detail={"a": [1, {"b": "ü"}]}, address="2001:db8::1")
    ada = session_client("ada")
    response, body = export(ada, "format=jsonl&action=document.erase")
    assert response.headers["Content-Type"].startswith("application/x-ndjson")
    told = [json.loads(line) for line in body.splitlines()]
    api = people.ada.client.get("/api/v1/audit?action=document.erase").json()["results"]
    assert told == api and told[0]["id"] == str(event.pk)


def test_exporting_is_in_the_log_and_holds_this_tenants_rows_alone(people: People) -> None:
    ada = session_client("ada")
    with scope(tenant_id=people.globex.pk, tags=None):
        AuditEvent.objects.create(action="document.erase", actor_name="gus-alone")
    add(people, 3)
    _, body = export(ada, "format=csv&actor=nina")
    assert body.count("nina") == 3
    _, everything = export(ada)
    assert "gus-alone" not in everything
    with scope(tenant_id=people.acme.pk, tags=None):
        events = list(AuditEvent.objects.filter(action="audit.export").order_by("at"))
    assert [event.detail for event in events] == [{"format": "csv", "actor": "nina"}, {"format": "csv"}]
    assert {event.actor_name for event in events} == {"ada"}
    assert export(ada, "format=xlsx")[0].status_code == 400


def test_only_those_who_manage(people: People) -> None:
    for path in ("/audit/", "/audit/export/"):
        assert session_client("nina").get(path).status_code == 403
        assert Client().get(path).status_code == 302
    add(people, target_id="acme-alone")
    assert (
        shown(session_client("gus"), "actor=nina") == shown(session_client("gus"), "target=acme-alone") == []
    )
    assert shown(session_client("ada"), "target=acme-alone") == ["document.read"]


def test_the_detail_is_told_in_words(people: People) -> None:
    before = {"role": "helpdesk", "tags": ["faq", "configs"], "same": 1}
    after = {"role": "admin", "tags": ["faq", "topology"], "same": 1}
    event = AuditEvent(
        action="member.change",
        actor_name="ada",
        detail={"user": "nina", "before": before, "after": after, "cached": True},
    )
    assert str(words_of(event)) == "changed a member"
    assert facts_of(event) == [
        ("role", "helpdesk → admin"),
        ("tags", "+topology, −configs"),
        ("user", "nina"),
        ("cached", "yes"),
    ]
    assert facts_of(AuditEvent(detail={"before": "a@x", "after": "b@x"})) == [("change", "a@x → b@x")]
    assert facts_of(AuditEvent(detail={"deep": {"a": 1}, "none": None})) == [
        ("deep", '{"a": 1}'),
        ("none", "–"),
    ]
    assert str(words_of(AuditEvent(action="some_thing.new"))) == "some thing new"
    ada = session_client("ada")
    add(people, action="role.change", detail={"before": {"name": "<b>x"}, "after": {"name": "y"}})
    page = ada.get("/audit/?action=role.change").content.decode()
    assert "&lt;b&gt;x → y" in page and "<b>x" not in page


def test_every_action_that_is_recorded_has_words() -> None:
    """Found in the source: the first argument, or ``action=``, of every call that records."""
    recorded = set()
    for app in ("tenants", "knowledge", "feedback"):
        for path in (CHECKOUT / app).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not getattr(node.func, "id", "").startswith("record_"):
                    continue
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and re.fullmatch(r"[a-z_]+\.[a-z_]+", str(part.value)):
                        recorded.add(part.value)
    recorded = {action for action in recorded if not action.startswith("platform.")}  # of no tenant
    assert len(recorded) > 35
    assert recorded - set(ACTIONS) == set()


def test_an_id_of_no_event_leads_nowhere_but_to_an_empty_page(people: People) -> None:
    page = session_client("ada").get(f"/audit/?target={uuid4()}").content.decode()
    assert "Nothing fits" in page
