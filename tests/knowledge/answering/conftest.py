"""A site that answers hits before Django, and one who asks it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.knowledge.hits_site import Asker, asker
from tests.live import serve


@pytest.fixture
def site(shared: Any, settings: Any) -> Iterator[str]:
    settings.HOPS_IN_CALLING_THREAD = False
    with serve(fast_hits=True) as address:
        yield address


@pytest.fixture
def nina(shared: Any, site: str) -> Iterator[Asker]:
    with asker(site, shared.nina) as found:
        yield found
