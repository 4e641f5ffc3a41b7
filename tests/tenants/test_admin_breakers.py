"""The breakers in the admin."""

from typing import Any

from ragsite.core.breaker import model_breaker
from tests.knowledge.conftest import shared as shared
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.tenants.admin_cast import operator, signed_in

pytestmark = on_shared_cast
PAGE = "/admin/breakers/"


def test_superusers_see_states_and_changes_and_nobody_else_does(shared: Any) -> None:
    broken = model_breaker("openai")
    for _ in range(5):
        broken.report_now(broken.admit_now(), "failure", reason="OpenAI had an internal error (500).")
    page = operator().get(PAGE).content.decode()
    for words in ("model:anthropic", "database", "cache", "open: left alone", "internal error (500)"):
        assert words in page, words
    assert page.count("closed: calls pass") == 4
    assert "Breakers" in operator().get("/admin/").content.decode()
    for other in (operator(shared.acme), signed_in("ada")):
        assert other.get(PAGE).status_code == 403
        assert "Breakers" not in other.get("/admin/").content.decode()
