"""How long a withdrawn document can still be found: measured by another process, and told when it still is."""

import json
import time
from base64 import b64decode
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.template.defaultfilters import floatformat
from django.utils import timezone
from django_redis import get_redis_connection

from knowledge import withdrawals
from knowledge.documents import change_document, delete_document, restore_document
from knowledge.index_figures import read_index_figures
from knowledge.models import Collection, Document, IndexDay
from knowledge.tasks import apply_retention, measure_withdrawal_of
from knowledge.webhooks.documents import remove_document
from knowledge.withdrawals import measure_withdrawal, read_withdrawals
from ragsite.celery import app as _app  # noqa: F401  messages go to our broker, whichever test ran before
from tenants.scope import scope
from tests.cast import add_indexed
from tests.knowledge.ingestion.syncing import documents_of, make_source, sync, write
from tests.knowledge.pages.helpers import html_of, signed_in, words_of
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def document(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None):
        text = "# Capstan\n\nThe capstan is greased on Mondays.\n"
        yield add_indexed(
            collection=shared.collections["acme"], name="capstan.md", tags=["faq", "runbooks"], text=text
        )
        Document.objects.filter(uri="capstan.md").delete()
        IndexDay.objects.all().delete()


def sent() -> list[dict[str, Any]]:
    """What was sent to be measured, oldest first; the queue is empty afterwards."""
    redis = get_redis_connection("default")
    messages = [json.loads(each) for each in reversed(redis.lrange("celery", 0, -1))]
    redis.delete("celery")
    return [
        json.loads(b64decode(each["body"]))[1]
        for each in messages
        if each["headers"]["task"] == measure_withdrawal_of.name
    ]


def test_a_deletion_is_measured(shared: Any, document: Document) -> None:
    begun = time.time()
    delete_document(document=document)
    (asked,) = sent()
    assert asked["document_id"] == str(document.pk) and asked["lost_tags"] is None
    assert begun <= asked["begun"] <= time.time()
    measure_withdrawal_of.apply(kwargs=asked, headers={"ragsite_tenant": str(shared.acme.pk)}).get()
    measured, still_found = read_withdrawals()
    assert len(measured) == 1 and 0 < measured[0] < 5000 and not still_found
    assert (
        IndexDay.objects.get().documents == read_index_figures().documents
    )  # the day's figures are there too
    words = words_of(html_of(signed_in("ada").get("/index/")))
    # As the page rounds: 24.5 up, which Python does not.
    assert f"≤ {floatformat(measured[0], 0)} ms median of 1 in 30 days" in words
    assert "measured when something is deleted" in words_of(html_of(signed_in("gus").get("/index/")))
    # One of many at once, of each tenant.
    other = shared.documents["acme"]["vpn-faq.md"]
    delete_document(document=other)
    restore_document(document=other)
    assert sent() == []
    cache.delete(f"withdrawal-measured:{shared.acme.pk}")


def test_what_comes_back_or_comes_late_is_no_measurement(shared: Any, document: Document) -> None:
    ask = {"document_id": str(document.pk), "lost_tags": None}
    assert measure_withdrawal(**ask, begun=time.time()) is None  # it was not deleted at all
    delete_document(document=document)
    assert measure_withdrawal(**ask, begun=time.time() - 60) is None
    assert read_withdrawals() == ([], 0)
    restore_document(document=document)
    assert measure_withdrawal(**ask, begun=time.time()) is None
    assert read_withdrawals() == ([], 0)


def test_lost_tags_are_measured_with_the_eyes_of_who_read_them(shared: Any, document: Document) -> None:
    cache.delete(f"withdrawal-measured:{shared.acme.pk}")
    sent()
    change_document(document=document, tags=["faq", "runbooks", "standards"])
    assert sent() == []  # nobody has lost anything
    change_document(document=document, tags=["faq"])
    (asked,) = sent()
    assert asked["lost_tags"] == ["runbooks", "standards"]
    assert measure_withdrawal(**asked) is not None
    assert measure_withdrawal(**(asked | {"lost_tags": ["faq"]})) is None  # these still read it


def test_what_goes_by_itself_is_measured_too(tmp_path: Path, shared: Any) -> None:
    """A file that is gone, a document that has come of age, one that a webhook takes back."""
    with scope(tenant_id=shared.acme.pk, tags=None):
        collection = Collection.objects.create(slug="brief", name="Brief", retention_days=10)
        for name in ("gone", "old", "pushed", "stays"):
            write(tmp_path / f"{name}.md", f"# Windlass\n\nThe windlass in {name} is painted.\n")
        source = make_source(tmp_path, collection=collection)
        sync(source)
        documents = documents_of(source)

        def lose() -> None:
            (tmp_path / "gone.md").unlink()
            sync(source)

        def come_of_age() -> None:
            past = timezone.now() - timedelta(days=11)
            Document.objects.filter(pk=documents["old.md"].pk).update(current_since=past)
            apply_retention()

        def take_back() -> None:
            assert remove_document(source=source, uri="pushed.md")

        for name, withdraw in {"gone.md": lose, "old.md": come_of_age, "pushed.md": take_back}.items():
            cache.delete(f"withdrawal-measured:{shared.acme.pk}")
            sent()
            withdraw()
            (asked,) = sent()
            assert asked["document_id"] == str(documents[name].pk) and asked["lost_tags"] is None, name
            assert measure_withdrawal(**asked) is not None, name
        measured, still_found = read_withdrawals()
        assert len(measured) == 3 and not still_found
        assert list(documents_of(source)) == ["stays.md"]
        IndexDay.objects.all().delete()


def test_what_is_still_found_is_counted_and_shown(
    shared: Any, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the question that is asked does find the document while it is there."""
    delete_document(document=document)
    question = withdrawals._question_of(document_id=str(document.pk), lost_tags=None)
    restore_document(document=document)
    monkeypatch.setattr(withdrawals, "_question_of", lambda **_: question)
    monkeypatch.setattr(withdrawals, "PAUSE_SECONDS", 0.0)
    assert measure_withdrawal(document_id=str(document.pk), lost_tags=None, begun=time.time() - 60) is None
    assert read_withdrawals() == ([], 1)
    assert "1 was still found" in words_of(html_of(signed_in("ada").get("/index/")))
