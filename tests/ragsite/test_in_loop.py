"""Django's middleware under ASGI: in the event loop, and doing what it does elsewhere."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asgiref.sync import SyncToAsync
from django.conf import settings
from django.utils.deprecation import MiddlewareMixin

from ragsite.in_loop import Handler
from tests.cast import PASSWORD, Cast

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def chain_of(handler: Handler) -> Iterator[Any]:
    link: Any = handler._middleware_chain
    while link is not None:
        link = getattr(link, "__wrapped__", link)
        yield link
        link = getattr(link, "get_response", None)


def test_the_settings_name_djangos_middleware_and_none_of_it_goes_to_a_thread_by_itself() -> None:
    named = list(settings.MIDDLEWARE)
    links = [type(link) for link in chain_of(Handler()) if isinstance(link, MiddlewareMixin)]
    assert len(links) == 8
    assert all(kind.__acall__ is not MiddlewareMixin.__acall__ for kind in links), links
    assert named == settings.MIDDLEWARE
    assert "django.middleware.security.SecurityMiddleware" in named  # which the deployment checks look for


def test_a_request_of_the_api_leaves_the_loop_for_the_database_alone(
    live_site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[str] = []
    go = SyncToAsync.__call__

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        hops.append(getattr(self.func, "__qualname__", repr(self.func)))
        return go(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", count)
    response = httpx.post(f"{live_site}/api/v1/query", json={"question": "Why?"})
    assert response.status_code == 401
    # What is done for any request in no middleware: signals, the log of an error, the end of a response.
    others = {"Signal.asend.<locals>.sync_send", "log_response", "HttpResponseBase.close"}
    assert set(hops) - {"run_db.<locals>.run"} <= others, hops


def test_sessions_csrf_messages_and_headers_are_as_ever(cast: Cast, live_site: str) -> None:
    with httpx.Client(base_url=live_site, follow_redirects=False) as client:
        page = client.get("/sign-in/")
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        form = {"username": "nina", "password": PASSWORD}
        assert client.post("/sign-in/", data=form).status_code == 403, "without the form's token"
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token is not None
        signed_in = client.post("/sign-in/", data=form | {"csrfmiddlewaretoken": token[1]})
        assert signed_in.status_code == 302
        assert "ragsite_session" in signed_in.cookies
        assert client.get("/").status_code == 200, "the session was stored"
