"""A document of a source that somebody deleted stays away until it is restored or taken again."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from knowledge.documents import erase_deleted
from knowledge.models import Collection, Document, Source
from knowledge.retention import expire_documents
from knowledge.sources import save_source
from knowledge.webhooks.events import Event
from knowledge.webhooks.receive import _act
from knowledge.webhooks.signatures import Signed
from tenants.models import AuditEvent
from tests.knowledge.helpers import check_problem, conforms, send
from tests.knowledge.ingestion.syncing import (
    documents_of,
    make_source,
    sources_of_its_own,  # noqa: F401
    sync,
    write,
)
from tests.knowledge.rows import html_of, signed_in
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def folder(tmp_path: Path) -> Source:
    write(tmp_path / "secret.md", "# Secret\n\nThe dingo code is 3131.\n")
    write(tmp_path / "open.md", "# Open\n\nThe dingo is a dog.\n")
    source = make_source(tmp_path)
    assert sync(source).changed == 2
    return source


def delete(shared: Any, source: Source, uri: str = "secret.md") -> Document:
    document = documents_of(source)[uri]
    assert send(shared.ada, "delete", f"documents/{document.pk}").status_code == 204
    return document


def finds(shared: Any) -> bool:
    return "code is 3131" in str(
        send(shared.hal, "post", "search", {"question": "dingo code 3131"}).json()["sources"]
    )


def excluded(shared: Any, source: Source) -> list[str]:
    response = send(shared.ada, "get", f"sources/{source.pk}/excluded")
    return [row["uri"] for row in conforms(response, "/api/v1/sources/{id}/excluded", "get")["results"]]


def test_what_was_deleted_here_stays_away_changed_and_erased(
    shared: Any, folder: Source, tmp_path: Path
) -> None:
    assert finds(shared)
    delete(shared, folder)
    job = sync(folder)
    assert (job.seen, job.changed, job.unchanged) == (2, 0, 2)
    assert job.result["changes"] == {"excluded": ["secret.md"]}
    write(tmp_path / "secret.md", "# Secret\n\nThe dingo code is 3131, and was revised.\n", age=30)
    assert sync(folder).changed == 0 and not finds(shared)
    assert erase_deleted(before=timezone.now() + timedelta(days=1)) == 1
    assert sync(folder).changed == 0 and not finds(shared) and set(documents_of(folder)) == {"open.md"}
    assert excluded(shared, folder) == ["secret.md"]
    page = html_of(signed_in("ada").get(f"/sources/{folder.pk}/"))
    assert "Left out: deleted here: 1" in page and "Take it again" in page


def test_restored_it_follows_its_source_again(shared: Any, folder: Source, tmp_path: Path) -> None:
    document = delete(shared, folder)
    write(tmp_path / "secret.md", "# Secret\n\nThe dingo code is 3131, and was revised.\n", age=30)
    sync(folder)
    assert send(shared.ada, "post", f"documents/{document.pk}/restore").status_code == 200
    assert excluded(shared, folder) == [] and finds(shared)
    assert sync(folder).changed == 1 and documents_of(folder)["secret.md"].pk == document.pk


def test_an_exclusion_is_given_up_on_the_page_and_by_the_api(shared: Any, folder: Source) -> None:
    delete(shared, folder)
    delete(shared, folder, "open.md")
    assert excluded(shared, folder) == ["open.md", "secret.md"]
    form = {"uri": "secret.md", "place": "source"}
    assert signed_in("ada").post(f"/sources/{folder.pk}/take-again/", form).status_code == 302
    assert excluded(shared, folder) == ["open.md"]
    assert sync(folder).changed == 1 and finds(shared)
    path = f"sources/{folder.pk}/excluded"
    check_problem(send(shared.nina, "delete", path), 403)
    assert send(shared.ada, "delete", f"{path}?uri=absent.md").status_code == 204
    assert excluded(shared, folder) == ["open.md"]
    assert send(shared.ada, "delete", path).status_code == 204
    assert sync(folder).changed == 1 and set(documents_of(folder)) == {"open.md", "secret.md"}
    events = AuditEvent.objects.filter(action="source.take_again", target_id=str(folder.pk)).order_by("at")
    assert [event.detail["documents"] for event in events] == [["secret.md"], ["open.md"]]


def test_what_the_source_itself_took_away_may_come_back(shared: Any, folder: Source, tmp_path: Path) -> None:
    (tmp_path / "secret.md").rename(tmp_path.parent / "away.md")
    assert sync(folder).deleted == 1
    (tmp_path.parent / "away.md").rename(tmp_path / "secret.md")
    assert sync(folder).changed == 1 and finds(shared)


def test_retention_neither_ends_nor_needs_it(shared: Any, tmp_path: Path) -> None:
    collection = Collection.objects.create(slug="brief", name="Brief", retention_days=10)
    write(tmp_path / "secret.md", "# Secret\n\nThe dingo code is 3131.\n")
    source = make_source(tmp_path, collection=collection)
    sync(source)
    delete(shared, source)
    expire_documents(now=timezone.now() + timedelta(days=11))
    Collection.objects.filter(pk=collection.pk).update(retention_days=None)
    source = Source.objects.select_related("collection").get(pk=source.pk)
    assert sync(source).changed == 0 and excluded(shared, source) == ["secret.md"]


def test_a_pushed_document_that_was_deleted_here_is_not_taken(shared: Any) -> None:
    source = save_source(
        source=Source(kind="push", name="pushed", collection=shared.collections["acme"]),
        changes={"tags": ["faq"]},
    )
    event = Event("document.upsert", data={"uri": "a.md", "content": "The dingo code is 3131."})
    signed = Signed(scheme="standard", once="1")
    assert _act(source, event, signed, None).status == "started"
    delete(shared, source, "a.md")
    received = _act(source, event, signed, None)
    assert received.status == "ignored" and "deleted here" in received.detail
    assert send(shared.ada, "delete", f"sources/{source.pk}/excluded").status_code == 204
    assert _act(source, event, signed, None).status == "started"
