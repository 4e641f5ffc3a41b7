"""A tenant's language models in the admin."""

import json
from typing import Any

from knowledge.models import ModelSettings
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.helpers import send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.tenants.admin_cast import signed_in, url_of

pytestmark = on_shared_cast
ORDER = [{"provider": "anthropic", "model": "claude-sonnet-5-5", "small_model": "claude-haiku-5-5"}]
NEW = {"order": json.dumps(ORDER), "routing": "off", "prompt_tokens": "800", "cache_seconds": '{"state": 60}'}


def test_models_are_set_once_changed_and_checked_as_the_api_does(shared: Any, configure: Any) -> None:
    configure(ANTHROPIC_API_KEY="sk-ant-test", ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    ada, add = signed_in("ada"), url_of(ModelSettings, "add")
    for wrong, words in (
        ({"order": '[{"provider": "acme", "model": "m"}]'}, "is not configured here"),
        ({"order": '[{"model": "m"}]'}, "Name one of anthropic, extractive."),
        ({"order": '"anthropic"'}, "Expected a list of items"),
        ({"order": "[{"}, "Enter a valid JSON"),
        ({"cache_seconds": '{"state": -1}'}, "cache_seconds: state: "),
        ({"prompt_tokens": "-1"}, "greater than or equal to 0"),
    ):
        response = ada.post(add, NEW | wrong, follow=True)
        assert response.status_code == 200 and words in response.content.decode(), wrong
        with scope(tenant_id=shared.acme.pk, tags=None):
            assert not ModelSettings.objects.exists(), wrong
    assert ada.post(add, NEW).status_code == 302
    with scope(tenant_id=shared.acme.pk, tags=None):
        row = ModelSettings.objects.get()
        assert AuditEvent.objects.filter(action="models.change").exists()
    told = send(shared.ada, "get", "model-settings").json()
    assert (told["order"], told["routing"], told["prompt_tokens"], told["cache_seconds"]) == (
        ORDER,
        "off",
        800,
        {"state": 60},
    )
    assert "anthropic claude-sonnet-5-5" in ada.get(url_of(ModelSettings, "changelist")).content.decode()
    assert ada.get(add).status_code == 403, "there is one already"
    change = url_of(ModelSettings, "change", row.pk)
    assert not told["semantic_cache"], "its box was not ticked"
    ticked = {"order": "[]", "routing": "", "semantic_cache": "on"}
    assert ada.post(change, NEW | ticked).status_code == 302
    told = send(shared.ada, "get", "model-settings").json()
    assert (
        told["order"] == []
        and told["routing"] == ""
        and told["prompt_tokens"] == 800
        and told["semantic_cache"]
    )
    # Nobody else's, and nobody's who does not manage.
    assert signed_in("gus").get(change).status_code == 404
    assert signed_in("nina").get(change).status_code in (302, 403)
    with scope(tenant_id=shared.acme.pk, tags=None):
        ModelSettings.objects.all().delete()
