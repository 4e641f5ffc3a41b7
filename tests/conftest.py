"""What the tests share. The servers they run on are started by ``tests/servers.py``."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    from django.conf import settings
    from django.test import TransactionTestCase

    from tests.emptying import empty_database

    # What pytest-django does after a test whose transactions were real.
    TransactionTestCase._fixture_teardown = lambda self: empty_database()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # Argon2 is slow on purpose
    settings.HOPS_IN_CALLING_THREAD = True
    settings.WHITENOISE_AUTOREFRESH = True


# The files that take longest, together two thirds of the time; between those that keep a processor busy some that wait.
# xdist would begin with those of the most tests and leave a worker alone with one of these at the end.
LONGEST = (
    "browser/test_documents.py",
    "browser/test_people.py",
    "knowledge/answering/test_coalesce.py",
    "browser/test_every_page.py",
    "knowledge/answering/test_linger.py",
    "browser/test_answers.py",
    "chaos/",
    "browser/test_admin.py",
    "knowledge/answering/test_fast_hits.py",
    "browser/test_troubles.py",
    "ragsite/test_stack.py",
    "browser/",
    "tenants/test_admin.py",
    "ragsite/test_bench_load.py",
    "knowledge/answering/test_coalesce_processes.py",
    "security/test_routes.py",
    "knowledge/ingestion/test_worker_real.py",
    "ragsite/test_bench.py",
    "knowledge/answering/test_fast_hits_end.py",
    "ragsite/test_embedded.py",
    "tenants/test_admin_lists.py",
    "knowledge/ingestion/",
    "knowledge/api/",
    "knowledge/answering/",
    "security/",
    "knowledge/pages/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For xdist: the longest files first, then those of many tests; within a file nothing changes."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    here = Path(__file__).parent
    sizes = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int]:
        name = item.path.relative_to(here).as_posix()
        first = next((at for at, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))
        return first, -sizes[item.path]

    items.sort(key=place)  # stable: what was together stays together


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """xdist's suffix goes onto the owner alias; the two mirrors copy its name."""
    from django.conf import settings
    from pytest_django.fixtures import _set_suffix_to_test_databases

    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        _set_suffix_to_test_databases(suffix=worker)
    assert settings.DATABASES["default"]["TEST"]["MIRROR"] == "owner"


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """After the test databases are made: no alias may be on the real one (a mirror that was passed over would be)."""
    from django.db import connections

    for name in ("owner", "default", "platform"):
        assert connections[name].settings_dict["NAME"].startswith("test_"), name
    yield
    with django_db_blocker.unblock():
        connections.close_all()  # Django closes the owner's alone, and a database is dropped when nobody uses it


@pytest.fixture(autouse=True)
def clean_process() -> Iterator[None]:
    """What processes remember between requests must not leak from one test into the next."""
    from django_redis import get_redis_connection

    from knowledge.answering import record
    from ragsite.core import breaker
    from tenants import scope

    breaker.reset_local()  # first: Redis may be left alone
    get_redis_connection("default").flushdb()
    record._prices = (0.0, ())
    scope._last_system_audit.clear()
    yield
    assert scope.current_scope() is None, "the test left a scope behind"


@pytest.fixture
def cast(transactional_db: None) -> Any:
    """Two tenants with the people of the demo data, and a few documents with known facts; committed.

    Tests that use it see each other's rows never: the database is emptied after each.
    """
    from tests.cast import make_cast

    return make_cast()


@pytest.fixture
def live_site(cast: Any, settings: Any) -> Iterator[str]:
    """A real ASGI server on the test database; yields its address."""
    from tests.live import serve

    settings.HOPS_IN_CALLING_THREAD = False
    with serve() as address:
        yield address


@pytest.fixture
def in_thread() -> Callable[[Callable[[], Any]], Any]:
    """Runs a function in a fresh thread, without the test's context variables."""

    def run(function: Callable[[], Any]) -> Any:
        result: list[Any] = []

        def call() -> None:
            from django.db import connections

            try:
                result.append(function())
            finally:
                connections.close_all()

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return result[0]

    return run
