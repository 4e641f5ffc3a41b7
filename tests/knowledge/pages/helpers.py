"""What the tests of the document pages say often."""

import re
from collections.abc import Callable
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.cast import PASSWORD

HTMX = {"HX-Request": "true"}


def signed_in(username: str) -> Client:
    client = Client()
    assert client.login(username=username, password=PASSWORD)
    return client


def html_of(response: Any, status: int = 200) -> str:
    assert response.status_code == status, (response.status_code, response.content[:600])
    return str(response.content.decode())


def table_of(page: str) -> str:
    """The rows of a page's first table, in one line."""
    found = re.search(r"<tbody.*</tbody>", page, re.S)
    assert found, page[:2000]
    return " ".join(found[0].split())


def titles_of(page: str) -> list[str]:
    """The titles of a list of documents, in its order."""
    return re.findall(r'<td class="what">\s*<(?:a|strong)[^>]*>([^<]*)<', page)


def words_of(page: str) -> str:
    """What a page says, without its tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def note(name: str = "note.md", text: str = "# Note\n\nA line of text.\n") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, text.encode())


def count_queries(work: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connections["default"]) as captured:
        work()
    return len(captured)
