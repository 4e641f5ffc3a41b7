"""The index page of a tenant, and what a source's last sync changed."""

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from knowledge.embedding.factory import embedder
from knowledge.evaluation.spaces import run_requested_comparison
from knowledge.index_figures import note_index_day, read_index_figures
from knowledge.models import Document, EmbeddingSpace, IndexDay, Job, Source
from knowledge.tasks import build_spaces
from tenants.models import AuditEvent, Role
from tenants.people import add_member, create_user
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD
from tests.knowledge.pages.helpers import html_of, signed_in, words_of
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.security.helpers import signature

pytestmark = on_shared_cast


def test_numbers_of_ones_own_tenant(shared: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        documents = Document.objects.filter(deleted_at__isnull=True).count()
        EmbeddingSpace.objects.create(model="another/model", dimensions=768)
        Document.objects.create(
            collection=shared.collections["acme"], uri="w.md", title="w", pending_name="00/" + "0" * 32
        )
    words = words_of(html_of(signed_in("ada").get("/index/")))
    assert f"Documents {documents + 1} " in words and "another/model being built Dimensions 768" in words
    assert "searched Dimensions 384" in words and "1 document waits" in words
    other = words_of(html_of(signed_in("gus").get("/index/")))
    assert "another/model" not in other and "Documents 2 " in other
    assert "none everything known is indexed" in other
    with scope(tenant_id=shared.acme.pk, tags=None):
        EmbeddingSpace.objects.filter(model="another/model").delete()
        Document.objects.filter(uri="w.md").delete()


def test_who_manages_and_reads_some_tags_sees_the_numbers_of_all(shared: Any) -> None:
    whole = words_of(html_of(signed_in("ada").get("/index/")))
    with scope(tenant_id=shared.acme.pk, tags=None):
        role = Role.objects.create(name="half", tags=["faq"], abilities=["manage"])
        add_member(user=create_user(username="mia", password=PASSWORD, check_password=False), role=role)
    half = words_of(html_of(signed_in("mia").get("/index/")))
    figures = "of the whole tenant. (.*?) Version"
    assert re.search(figures, half)[0] == re.search(figures, whole)[0]  # type: ignore[index]
    assert "Missing" not in half


def test_growth_is_kept_by_the_day(shared: Any) -> None:
    ada, now = signed_in("ada"), timezone.now()
    assert "from tomorrow on" in words_of(html_of(ada.get("/index/")))
    with scope(tenant_id=shared.globex.pk, tags=None):
        note_index_day(now=now - timedelta(days=1))
    assert "from tomorrow on" in words_of(
        html_of(ada.get("/index/"))
    )  # another tenant's are no business of hers
    with scope(tenant_id=shared.acme.pk, tags=None):
        figures = read_index_figures()
        note_index_day(now=now - timedelta(days=40))
        note_index_day(now=now - timedelta(days=2))
        IndexDay.objects.filter(day=(now - timedelta(days=2)).date()).update(chunks=1234, documents=77)
        note_index_day(now=now)
        note_index_day(now=now)  # once a day
        assert IndexDay.objects.count() == 3
        assert IndexDay.objects.get(day=now.date()).chunks == figures.chunks > 0
        page = html_of(ada.get("/index/"))
        IndexDay.objects.all().delete()
    words = words_of(page)
    assert f"Passages {figures.chunks} 1,234 on" in words and f"Documents {figures.documents} 77 on" in words
    assert f"to {figures.chunks} today." in page and page.count("<rect ") == 3


def test_the_sizes_of_all_tenants_are_metrics(shared: Any, client: Any) -> None:
    cache.delete("sizes-of-all")
    text = client.get("/metrics").content.decode()
    found = {
        line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("rag_index_")
    }
    with unscoped(reason="tests"):
        there = Document.objects.filter(deleted_at__isnull=True)
        assert found["rag_index_documents"] == there.count() >= 7
        assert found["rag_index_chunks"] == sum(there.values_list("chunk_count", flat=True))
        assert found["rag_index_bytes"] == sum(there.values_list("size", flat=True)) > 0


def test_another_model_is_started_compared_and_switched_to_and_back(
    shared: Any, other: str, timers: Any, configure: Any
) -> None:
    ada, first = signed_in("ada"), embedder().name

    def act(action: str, **fields: Any) -> str:
        return words_of(html_of(ada.post("/index/spaces/", {"action": action, **fields}, follow=True)))

    assert "Choose one of the models that are offered" in act("start", model=other)
    configure(RAGSITE_EMBEDDING_MODELS=f" {other}, ")
    assert f"Vectors of {other} are made from now on" in act("start", model=other)
    space = EmbeddingSpace.objects.get(model=other)
    assert "by 1 question" not in words_of(html_of(ada.get("/index/")))
    assert "have no vector" in act("switch", space=space.pk, without_comparison="on")
    build_spaces()
    cache.delete(f"spaces:{shared.acme.pk}")
    assert "Not compared with the model in use" in words_of(html_of(ada.get("/index/")))
    assert "compare them first" in act("switch", space=space.pk)
    assert "is being compared" in act("compare", space=space.pk, set=timers.pk)
    run_requested_comparison(space_id=str(space.pk), set_id=str(timers.pk))
    words = words_of(html_of(ada.get("/index/")))
    assert f"Compared with {first} by 1 question of “timers”" in words
    assert re.search(r"ndcg@10 1\.000 [01]\.\d{3} [+-]?\d\.\d{3} .*?[01]\.\d{3} recall@10", words)
    assert f"searched with {other} from now on" in act("switch", space=space.pk)
    old = EmbeddingSpace.objects.get(model=first)
    assert "Kept until" in words_of(html_of(ada.get("/index/"))) and old.state == "retired"
    assert f"searched with {first} from now on" in act("switch", space=old.pk)
    assert f"vectors of {other} are gone" in act("drop", space=space.pk)
    events = AuditEvent.objects.filter(action__startswith="embedding.", actor_name="ada")
    assert list(events.order_by("at").values_list("action", flat=True)) == [
        *(f"embedding.{each}" for each in ("start", "compare", "switch", "switch", "drop"))
    ]


def test_spaces_and_sets_of_others_are_absent(shared: Any, timers: Any) -> None:
    with scope(tenant_id=shared.globex.pk, tags=None):
        foreign = EmbeddingSpace.objects.get()
    gus, nina = signed_in("gus"), signed_in("nina")
    absent = signature(gus.post("/index/spaces/", {"action": "drop", "space": uuid.uuid4()}))
    with scope(tenant_id=shared.acme.pk, tags=None):
        own = EmbeddingSpace.objects.get()
    for action in ("drop", "switch", "compare"):
        told = signature(gus.post("/index/spaces/", {"action": action, "space": own.pk, "set": timers.pk}))
        assert told == absent and told[0] == 404
    for action in ("drop", "switch", "compare"):
        body = {"action": action, "space": foreign.pk, "set": timers.pk}
        assert gus.post("/index/spaces/", body).status_code == (404 if action == "compare" else 302)
        assert nina.post("/index/spaces/", {"action": action, "space": own.pk}).status_code == 403
    assert gus.post("/index/spaces/", {"action": "drop", "space": "x"}).status_code == 404


@pytest.mark.parametrize("username", ["nina", "hal"])
def test_only_who_manages_sees_it(shared: Any, username: str) -> None:
    assert signed_in(username).get("/index/").status_code == 403


def test_a_sources_last_changes(shared: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        source = Source.objects.create(name="Notes", path="notes", collection=shared.collections["acme"])
        for result in (
            {"totals": {"deleted": 7}, "changes": {"deleted": ["old.md"]}},
            {
                "totals": {"added": 250, "moved": 1},
                "changes": {
                    "added": [f"n{n}.md" for n in range(200)],
                    "moved": [{"from": "a/x.md", "to": "b/x.md"}],
                },
            },
        ):
            Job.objects.create(
                kind="sync", source=source, state="SUCCESS", finished_at=timezone.now(), result=result
            )
    words = words_of(html_of(signed_in("ada").get(f"/sources/{source.pk}/")))
    assert "Added: 250" in words and "n199.md" in words and "and 50 more" in words
    assert "a/x.md → b/x.md" in words and "old.md" not in words
    with scope(tenant_id=shared.acme.pk, tags=None):
        Job.objects.filter(source=source).delete()
        source.delete()
