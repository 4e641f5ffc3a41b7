"""The page of a source's webhook: the secret shown once, made anew, ended."""

import re
import uuid
from typing import Any

import pytest

from knowledge.models import Source
from knowledge.webhooks.secrets import live_secrets
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.pages.helpers import html_of, signed_in, words_of
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def source(shared: Any) -> Source:
    with scope(tenant_id=shared.acme.pk, tags=None):
        found: Source = Source.objects.create(
            name=f"Wiki {uuid.uuid4()}",
            kind="web",
            path=f"https://{uuid.uuid4()}.example/",
            collection=shared.collections["acme"],
        )
    return found


def test_the_secret_is_made_shown_once_and_ended(shared: Any, source: Source, configure: Any) -> None:
    ada, path = signed_in("ada"), f"/sources/{source.pk}/hook/"
    page = html_of(ada.get(path))
    assert "nothing is received" in page and f"http://testserver/api/v1/hooks/{source.pk}" in page
    assert path in html_of(ada.get(f"/sources/{source.pk}/"))
    configure(
        RAGSITE_SITE_URL="https://rag.example.com"
    )  # never the Host header where the site has an address
    assert f"https://rag.example.com/api/v1/hooks/{source.pk}" in html_of(ada.get(path))

    def make() -> str:
        response = ada.post(path)
        found = re.search(r"<code>(whsec_[^<]+)</code>", html_of(response))
        assert found and "no-store" in response.headers["Cache-Control"]
        return found[1]

    first = make()
    assert first not in html_of(ada.get(path)) and "GitHub" in html_of(ada.get(path))
    second = make()
    page = words_of(html_of(ada.get(path)))
    assert "holds until" in page and "Make a new secret" not in page
    assert "rotated already" in html_of(ada.post(path), status=409)
    with scope(tenant_id=shared.acme.pk, tags=None):
        source.refresh_from_db()
        assert live_secrets(source) == [second, first]
    response = ada.post(f"{path}delete/")
    assert response.status_code == 302 and response.headers["Location"] == path
    with scope(tenant_id=shared.acme.pk, tags=None):
        source.refresh_from_db()
        assert live_secrets(source) == []
        told = AuditEvent.objects.filter(target_id=str(source.pk)).order_by("at")
        assert [e.action for e in told] == ["source.hook_create", "source.hook_rotate", "source.hook_delete"]
        assert not any("whsec" in str(e.detail) for e in told)
    assert "made a webhook’s secret" in words_of(html_of(ada.get("/audit/"))).replace("&#x27;", "’")


def test_only_who_manages_sees_it(shared: Any, source: Source) -> None:
    for method in ("get", "post"):
        assert getattr(signed_in("nina"), method)(f"/sources/{source.pk}/hook/").status_code == 403
        assert getattr(signed_in("gus"), method)(f"/sources/{source.pk}/hook/").status_code == 404
    assert signed_in("nina").post(f"/sources/{source.pk}/hook/delete/").status_code == 403
