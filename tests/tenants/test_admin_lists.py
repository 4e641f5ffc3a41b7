"""The admin's lists with many rows: never counted, the same number of queries for 5 rows and for 50, bounded."""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from feedback.models import DocumentRequest, Feedback, Review
from knowledge.models import (
    Answer,
    Chunk,
    Collection,
    DeadLetter,
    Document,
    EmbeddingSpace,
    EvaluationRun,
    EvaluationSet,
    Job,
    ModelSettings,
    Price,
    Source,
)
from tenants.models import (
    ApiKey,
    AuditEvent,
    Budget,
    Invitation,
    Membership,
    Role,
    Tenant,
    TokenFamily,
    UsageRecord,
    User,
)
from tenants.people import add_member
from tenants.scope import scope
from tests.cast import Cast
from tests.tenants.admin_cast import is_of_tenant, operator, registered, signed_in, url_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

# Of these a tenant has some, not fifty; each row looks up what it shows.
A_HANDFUL = {Budget, EmbeddingSpace, ModelSettings}


@contextmanager
def statements() -> Iterator[Callable[[], list[str]]]:
    """What was sent to the database by either role."""
    with ExitStack() as stack:
        seen = [stack.enter_context(CaptureQueriesContext(connections[a])) for a in ("default", "platform")]
        yield lambda: [query["sql"] for each in seen for query in each.captured_queries]


def one(cast: Cast, model: Any, n: int) -> Any:
    """Another row of a model; in the scope of acme."""
    user = cast.ada.membership.user
    collection = cast.collections["acme"]
    person = User(username=f"{model._meta.model_name}{n}", password="!", email=f"person{n}@example.org")
    if model is Membership:
        person.save()
        return add_member(user=person, role=Role.objects.get(name="helpdesk"))
    answer = Answer(
        user=user, role_name="admin", question=f"question {n}", endpoint="query", status="success"
    )
    if model in (Feedback, Review, DocumentRequest):
        answer.save()
    document = Document(collection=collection, title=f"t{n}", uri=f"u{n}", tags=["runbooks"])
    if model is Chunk:
        document.save()
    later = timezone.now() + timedelta(days=7)
    made = {
        Answer: lambda: answer,
        ApiKey: lambda: ApiKey(membership=cast.ada.membership, name=f"k{n}", hint="abcd", secret_hash=uuid.uuid4().hex),
        AuditEvent: lambda: AuditEvent(action=f"thing.{n % 3}", actor_name="ada"),
        Chunk: lambda: Chunk(
            document=document, collection=collection, tags=["runbooks"], ordinal=n, start=0, end=4, text="text",
            tokens=1, content_hash="x",
        ),
        DeadLetter: lambda: DeadLetter(uri=f"u{n}", reason="It cannot be read."),
        Collection: lambda: Collection(slug=f"c{n}", name=f"c{n}"),
        Document: lambda: document,
        DocumentRequest: lambda: DocumentRequest(user=user, answer=answer, question=f"q{n}"),
        EvaluationSet: lambda: EvaluationSet(name=f"s{n}"),
        EvaluationRun: lambda: EvaluationRun(
            evaluation_set=EvaluationSet.objects.get_or_create(name="set")[0], embedder="m", fingerprint="f",
            documents=1, queries=1, p50_ms=1, p95_ms=2,
            metrics={arm: {"ndcg@10": 0.5, "recall@10": 0.5, "mrr@10": 0.5} for arm in ("dense", "keyword", "fused")},
        ),
        Feedback: lambda: Feedback(answer=answer, user=user, rating=1, reasons=["wrong"]),
        Invitation: lambda: Invitation(
            email=f"i{n}@example.org", role=Role.objects.get(name="helpdesk"), expires_at=later, invited_by=user
        ),
        Job: lambda: Job(kind="reindex", user=user),
        Review: lambda: Review(answer=answer, assignee=user),
        Role: lambda: Role(name=f"r{n}", tags=["runbooks"]),
        Source: lambda: Source(name=f"s{n}", path=f"s{n}", collection=collection),
        TokenFamily: lambda: TokenFamily(membership=cast.ada.membership, current=uuid.uuid4(), expires_at=later),
        UsageRecord: lambda: UsageRecord(
            user=user, request_id=uuid.uuid4(), endpoint="query", provider="p", model=f"m{n % 3}", kind="answer",
            status="success",
        ),
        Tenant: lambda: Tenant(slug=f"tenant-{n}", name=f"tenant {n}"),
        User: lambda: person,
        Price: lambda: Price(
            provider="p", model=f"m{n}", effective_from=date(2026, 1, 1), input_per_mtok=1, output_per_mtok=2
        ),
        PeriodicTask: lambda: PeriodicTask(
            name=f"task {n}", task="t",
            interval=IntervalSchedule.objects.using("platform").create(every=n + 2, period="days"),
        ),
        IntervalSchedule: lambda: IntervalSchedule(every=n + 2, period="days"),
        CrontabSchedule: lambda: CrontabSchedule(minute=str(n)),
    }[model]()  # fmt: skip
    made.save(using=None if is_of_tenant(model) else "platform")
    return made


def fill(cast: Cast, model: Any, numbers: range) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        for n in numbers:
            one(cast, model, n)


def test_a_list_takes_as_many_queries_for_fifty_rows_as_for_five_and_counts_nothing(cast: Any) -> None:
    ada, root = signed_in("ada"), operator()
    for model in set(registered()) - A_HANDFUL:
        client, path = (ada if is_of_tenant(model) else root), url_of(model, "changelist")
        fill(cast, model, range(5))
        client.get(path)  # what is remembered afterwards is not looked up again
        with statements() as few:
            client.get(path)
        fill(cast, model, range(5, 45))
        with statements() as many:
            text = client.get(path).content.decode()
        assert text.count("data-row") >= 44, model
        assert len(many()) == len(few()), (model, few(), many())
        assert len(many()) <= 20, (model, many())
        for statement in many():
            # A badge counts to a hundred; nothing counts to the end.
            assert "COUNT(" not in statement or "LIMIT" in statement, (model, statement)


def test_a_page_is_left_by_looking_one_row_ahead(cast: Any) -> None:
    fill(cast, Collection, range(60))
    ada, path = signed_in("ada"), url_of(Collection, "changelist")
    first, second = ada.get(path).content.decode(), ada.get(path, {"p": 2}).content.decode()
    assert 'rel="next"' in first and 'rel="prev"' not in first
    assert 'rel="next"' not in second and 'rel="prev"' in second
    assert "1–50" in first and "51–61" in second  # sixty and the cast's own
    assert ada.get(path, {"p": 3}).status_code == 302


def test_nobody_pages_deeper_than_ten_thousand_rows(cast: Any) -> None:
    ada, path = signed_in("ada"), url_of(Answer, "changelist")
    with statements() as sent:
        response = ada.get(path, {"p": 201})
    assert response.status_code == 302 and response.headers["Location"].endswith("?e=1")
    assert not any("OFFSET" in statement for statement in sent())


def test_a_page_too_deep_says_how_to_go_on(cast: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("tenants.admin_lists.DEEPEST_ROW", 50)
    fill(cast, Collection, range(60))
    text = signed_in("ada").get(url_of(Collection, "changelist")).content.decode()
    assert 'rel="next"' not in text and "narrow the list" in text


def test_only_indexed_columns_sort_a_list(cast: Any) -> None:
    ada = signed_in("ada")
    with statements() as sent:
        assert ada.get(url_of(Answer, "changelist"), {"o": "1.-6"}).status_code == 200
    ordered = [s for s in sent() if 'FROM "knowledge_answer"' in s and "ORDER BY" in s and "LIMIT 51" in s]
    assert ordered
    for statement in ordered:
        assert statement.partition("ORDER BY")[2].strip().startswith('"knowledge_answer"."created_at" DESC')
    fill(cast, Tenant, range(3))
    text = operator().get(url_of(Tenant, "changelist"), {"o": "-1"}).content.decode()
    assert re.findall(r">(tenant-\d|globex|acme)</a>", text) == [
        "tenant-2",
        "tenant-1",
        "tenant-0",
        "globex",
        "acme",
    ]


def test_no_other_lookup_than_a_lists_own_filters_is_answered(cast: Any) -> None:
    ada, root = signed_in("ada"), operator()
    for model in registered():
        client = ada if is_of_tenant(model) else root
        for lookup in (
            "id__contains",
            "tenant__name__startswith",
            "user__password__startswith",
            "password__startswith",
        ):
            assert client.get(url_of(model, "changelist"), {lookup: "a"}).status_code == 400, (model, lookup)


def test_a_search_looks_at_the_newest_rows_and_an_id_finds_its_row(cast: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("tenants.admin_lists.ROWS_SEARCHED", 3)
    fill(cast, Answer, range(6))
    ada, path = signed_in("ada"), url_of(Answer, "changelist")
    assert "question 5" in ada.get(path, {"q": "Question 5"}).content.decode()
    assert (
        "question 1<" not in ada.get(path, {"q": "question 1"}).content.decode()
    )  # older than the three newest
    with scope(tenant_id=cast.acme.pk, tags=None):
        old = Answer.objects.get(question="question 1")
    assert "question 1<" in ada.get(path, {"q": str(old.pk)}).content.decode()
    assert "question 1<" in ada.get(path, {"status": "success"}).content.decode()


def test_filters_by_day_hold_whole_days_of_the_tenants_time_zone(cast: Any) -> None:
    Tenant.objects.using("platform").filter(pk=cast.acme.pk).update(time_zone="Pacific/Auckland")
    fill(cast, Answer, range(2))
    # 11:30 UTC on the 1st is the 2nd in Auckland (UTC+13 in January).
    moment = timezone.datetime(2026, 1, 1, 11, 30, tzinfo=timezone.get_default_timezone())
    with scope(tenant_id=cast.acme.pk, tags=None):
        Answer.objects.filter(question="question 0").update(created_at=moment)
    ada, path = signed_in("ada"), url_of(Answer, "changelist")
    for first, last, found in (
        ("2026-01-02", "2026-01-02", True),
        ("2026-01-01", "2026-01-01", False),
        ("2026-01-03", "", False),
        ("", "2026-01-02", True),
        ("no day", "2026-13-45", True),
    ):
        text = ada.get(path, {"created_at_from": first, "created_at_to": last}).content.decode()
        assert ("question 0" in text) is found, (first, last)
    assert "2\u00a0Jan\u00a02026" in ada.get(path, {"created_at_to": "2026-01-02"}).content.decode()


def test_an_action_holds_for_the_ticked_rows_alone(cast: Any) -> None:
    fill(cast, Review, range(4))
    with scope(tenant_id=cast.acme.pk, tags=None):
        ids = list(Review.objects.values_list("pk", flat=True))
    sent = {"action": "dismiss", "_selected_action": [str(ids[0])], "select_across": "1", "index": "0"}
    assert signed_in("ada").post(url_of(Review, "changelist"), sent).status_code == 302
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert list(Review.objects.filter(status="dismissed").values_list("pk", flat=True)) == [ids[0]]


def test_values_are_offered_from_the_newest_rows_and_any_may_be_asked_for(
    cast: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tenants.admin_lists.ROWS_SAMPLED", 2)
    fill(cast, UsageRecord, range(4))
    ada, path = signed_in("ada"), url_of(UsageRecord, "changelist")
    text = ada.get(path).content.decode()
    assert 'value="m0"' in text and 'value="m2"' in text and 'value="m1"' not in text
    assert ada.get(path, {"model": "m1"}).content.decode().count("data-row") == 1


def test_a_list_is_exported_as_it_is_filtered_with_cells_that_no_spreadsheet_runs(cast: Any) -> None:
    fill(cast, Answer, range(3))
    with scope(tenant_id=cast.acme.pk, tags=None):
        Answer.objects.filter(question="question 0").update(question='=cmd|"/c calc"!A1', status="error")
        Answer.objects.filter(question="question 1").update(question="@SUM(1)", status="error")
    ada = signed_in("ada")
    response = ada.get(url_of(Answer, "export"), {"status": "error"})
    lines = b"".join(response).decode().splitlines()
    assert response.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in response.headers["Content-Disposition"]
    assert len(lines) == 3
    assert any("\"'=cmd|" in line for line in lines) and any(",'@SUM(1)," in line for line in lines)
    with scope(tenant_id=cast.acme.pk, tags=None):
        event = AuditEvent.objects.filter(action="admin.export").get()
    assert event.actor_name == "ada" and event.detail == {
        "model": "knowledge.answer",
        "query": "status=error",
    }


def test_an_export_is_bounded(cast: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("tenants.admin_exports.ROWS_EXPORTED", 5)
    fill(cast, Collection, range(9))
    response = signed_in("ada").get(url_of(Collection, "export"))
    assert len(b"".join(response).decode().splitlines()) == 6
