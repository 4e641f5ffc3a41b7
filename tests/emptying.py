"""Empties the test database between tests: Django's ``flush`` without what it makes anew each time.

``flush`` goes on to make content types, permissions and the grants of our roles, which takes longer than emptying. They come
from the code alone and hold for the whole run. Deleting from the few tables that a test wrote would be quicker still, but
dead rows and old statistics would sway the plans that later tests look at; truncated tables are like new.
"""

from functools import cache

# Made by ``migrate``; no row of a test's is in them.
KEPT = {"django_content_type", "auth_permission"}


@cache
def _statement() -> str:
    from django.db import connections

    names = connections["owner"].introspection.django_table_names(only_existing=True, include_views=False)
    return "TRUNCATE " + ", ".join(f'"{name}"' for name in sorted(set(names) - KEPT))


def empty_database() -> None:
    """No row of any test is left when this returns; a transaction that a thread has not ended yet is waited for."""
    from django.db import connections

    owner = connections["owner"]
    assert owner.settings_dict["NAME"].startswith("test_"), owner.settings_dict["NAME"]
    with owner.cursor() as cursor:
        cursor.execute(_statement())
