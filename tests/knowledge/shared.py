"""For modules whose tests share one cast: import both names, and say ``pytestmark = on_shared_cast``.

pytest-django then makes the databases, and leaves what is in them alone between the module's tests.
"""

from typing import Any

import pytest

on_shared_cast = pytest.mark.django_db(databases=["default", "platform", "owner"])


@pytest.fixture
def _django_db_helper(shared: Any) -> None:
    """In the place of pytest-django's own, which would roll back or empty the database after each test."""
