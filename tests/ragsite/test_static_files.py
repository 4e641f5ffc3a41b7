"""Static files: served within the event loop, and under hashed names in production."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from django.conf import settings

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_a_file_is_served_and_not_modified_is_said(live_site: str) -> None:
    address = f"{live_site}/static/js/stream.js"
    found = httpx.get(address)
    assert found.status_code == 200 and "javascript" in found.headers["Content-Type"]
    assert found.text == (CHECKOUT / "static/js/stream.js").read_text()
    again = httpx.get(address, headers={"If-Modified-Since": found.headers["Last-Modified"]})
    assert again.status_code == 304 and not again.content
    part = httpx.get(address, headers={"Range": "bytes=0-9"})
    assert part.status_code == 206 and part.content == found.content[:10]
    assert httpx.get(f"{live_site}/static/js/nothing.js").status_code == 404
    assert httpx.get(f"{live_site}/static/../manage.py").status_code == 404


def test_no_middleware_leaves_the_event_loop() -> None:
    """A middleware that is synchronous alone moves every request, streams too, into a thread."""
    from django.utils.module_loading import import_string

    for path in settings.MIDDLEWARE:
        assert import_string(path).async_capable, path


def test_in_production_modules_import_each_other_by_hashed_names(tmp_path: Path) -> None:
    script = (
        "import django; from django.conf import settings; django.setup(); settings.STATIC_ROOT = sys.argv[1];"
        "settings.STORAGES['staticfiles']['BACKEND'] = 'ragsite.static_files.HashedFiles';"
        "from django.core.management import call_command; call_command('collectstatic', verbosity=0, interactive=False)"
    )
    subprocess.run(
        [sys.executable, "-c", "import sys; " + script, str(tmp_path)],
        check=True,
        cwd=CHECKOUT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "ragsite.settings"},
    )
    names = json.loads((tmp_path / "staticfiles.json").read_text())["paths"]
    ask = (tmp_path / names["js/ask.js"]).read_text()
    imported = re.findall(r'from "\./([^"]+)"', ask)
    assert imported and all(f"js/{name}" in names.values() for name in imported)
