"""The content security policy: unfold's needs under /admin, and there alone."""

from typing import Any

import pytest

from knowledge.models import Answer
from tests.tenants.admin_cast import operator, signed_in, url_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def policy(response: Any) -> dict[str, set[str]]:
    header = response.headers["Content-Security-Policy"]
    return {part.split()[0]: set(part.split()[1:]) for part in header.split(";") if part.strip()}


def test_the_admin_may_evaluate_and_nothing_comes_from_elsewhere(cast: Any) -> None:
    ada, root = signed_in("ada"), operator()
    pages = [
        ada.get("/admin/"),
        ada.get("/admin/costs/"),
        ada.get(url_of(Answer, "changelist")),
        ada.get("/admin/jsi18n/"),
        ada.get("/admin/password_change/"),
        root.get("/admin/"),
    ]
    for response in pages:
        assert response.status_code == 200
        found = policy(response)
        assert found["default-src"] == {"'none'"}
        assert found["script-src"] == {"'self'", "'unsafe-eval'"}  # no inline script
        assert found["style-src"] == {"'self'", "'unsafe-inline'"}
        for each in ("img-src", "font-src", "connect-src", "form-action"):
            assert found[each] == {"'self'"}, each
        assert found["frame-ancestors"] == found["base-uri"] == {"'none'"}


def test_our_own_pages_keep_the_strict_policy(cast: Any) -> None:
    ada = signed_in("ada")
    refused = signed_in("nina").get("/admin/", follow=True)
    assert refused.status_code == 403
    for response in (ada.get("/"), ada.get("/sign-in/"), ada.get("/nowhere"), refused):
        found = policy(response)
        assert not {"'unsafe-eval'", "'unsafe-inline'"} & set().union(*found.values())
        assert found["script-src"] >= {"'self'"} and found["default-src"] == {"'none'"}


def test_no_page_of_the_admin_has_an_inline_script_or_a_foreign_address(cast: Any) -> None:
    ada, root = signed_in("ada"), operator()
    for client, path in (
        (ada, "/admin/"),
        (ada, "/admin/costs/"),
        (ada, url_of(Answer, "changelist")),
        (root, "/admin/"),
        (root, "/admin/django_celery_beat/periodictask/add/"),
    ):
        text = client.get(path).content.decode()
        for tag in text.split("<script")[1:]:
            assert "src=" in tag.partition(">")[0], (path, tag[:200])
        for attribute in ('src="http', 'href="http', 'src="//', "onclick=", "onload=", "onerror="):
            assert attribute not in text, (path, attribute)
