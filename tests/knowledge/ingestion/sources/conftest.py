"""What the tests of several kinds of sources need."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.knowledge.ingestion.sources.sites import Site, serve_site


@pytest.fixture
def site(configure: Any) -> Iterator[Site]:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    with serve_site() as found:
        yield found
