"""The index page of a tenant, and what a source's last sync changed."""

from typing import Any

import pytest
from django.utils import timezone

from knowledge.models import Document, EmbeddingSpace, Job, Source
from tenants.scope import scope
from tests.knowledge.pages.helpers import html_of, signed_in, words_of
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def test_numbers_of_ones_own_tenant(shared: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        documents = Document.objects.filter(deleted_at__isnull=True).count()
        EmbeddingSpace.objects.create(model="another/model", dimensions=768)
        Document.objects.create(
            collection=shared.collections["acme"], uri="w.md", title="w", pending_name="00/" + "0" * 32
        )
    words = words_of(html_of(signed_in("ada").get("/index/")))
    assert f"Documents {documents + 1}" in words and "another/model being built 768" in words
    assert "searched 384" in words and "1 document" in words
    other = words_of(html_of(signed_in("gus").get("/index/")))
    assert "another/model" not in other and "Documents 2 " in other
    assert "none: everything known is indexed" in other


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
