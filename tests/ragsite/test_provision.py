"""A PostgreSQL of one's own: its URLs completed, its roles made, and refused with one sentence when unfit."""

import re
import socket
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from ragsite import provision
from ragsite.embedded import Servers, _cluster, embedded_servers
from ragsite.embedded_postgres import read_superuser_password
from ragsite.provision import (
    DatabaseUnusable,
    check_redis,
    check_server,
    database_urls,
    prepare_database,
    provision_roles,
)
from tests.ragsite.helpers import scratch_folder

BLANK = {"app_url": "", "platform_url": "", "secret": "s3cret"}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Servers, str]]:
    """Throw-away servers and the URL of PostgreSQL's superuser."""
    with scratch_folder() as data, embedded_servers(data=data, durable=False) as started:
        cluster = _cluster(data)
        password = quote(read_superuser_password(cluster))
        yield (
            started,
            f"postgresql://postgres:{password}@/postgres?host={quote(str(cluster.sockets), safe='')}",
        )


@pytest.fixture
def own_database(servers: tuple[Servers, str]) -> Iterator[str]:
    """A superuser's URL of a fresh database without pgvector, as on a server of one's own."""
    admin = servers[1]
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE DATABASE own TEMPLATE template0")
    yield admin.replace("/postgres?", "/own?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE own WITH (FORCE)")
        for (role,) in connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'own%'"
        ).fetchall():
            connection.execute(f'DROP ROLE "{role}"')


def message_of(error: pytest.ExceptionInfo[DatabaseUnusable]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert "hidden" not in message, "no password in a message"
    return message


def test_missing_urls_are_derived_from_the_owners() -> None:
    urls = database_urls(database_url="postgresql://me:pw@db.example:6432/docs?sslmode=require", **BLANK)
    app, platform = urlsplit(urls.app), urlsplit(urls.platform)
    assert urls.owner == "postgresql://me:pw@db.example:6432/docs?sslmode=require"
    assert (app.username, platform.username) == ("docs_app", "docs_platform")
    assert (app.hostname, app.port, app.path, app.query) == ("db.example", 6432, "/docs", "sslmode=require")
    assert app.password != platform.password
    assert re.fullmatch("[0-9a-f]{64}", app.password or "")


def test_derived_passwords_depend_on_the_secret_and_nothing_else() -> None:
    url = "postgresql://me:pw@db.example/docs"
    first = database_urls(database_url=url, **BLANK)
    assert first == database_urls(database_url=url, **BLANK)
    other = database_urls(database_url=url, app_url="", platform_url="", secret="other")
    assert urlsplit(first.app).password != urlsplit(other.app).password


def test_given_urls_are_kept() -> None:
    urls = database_urls(
        database_url="postgresql://me@db/docs", app_url="postgresql://a@db/docs", platform_url="", secret="x"
    )
    assert urls.app == "postgresql://a@db/docs"
    assert urlsplit(urls.platform).username == "docs_platform"


def test_sockets_and_ipv6_survive_and_the_owners_parameters_do_not() -> None:
    by_socket = database_urls(
        database_url="postgresql://me@/docs?host=%2Frun%2Fpg&user=me&password=pw", **BLANK
    )
    assert by_socket.app.endswith("@/docs?host=%2Frun%2Fpg")
    by_ipv6 = database_urls(database_url="postgresql://me@[::1]:5433/docs", **BLANK)
    assert "@[::1]:5433/docs" in by_ipv6.app


def test_a_port_that_is_none_is_said() -> None:
    with pytest.raises(DatabaseUnusable, match="DATABASE_URL cannot be read"):
        database_urls(database_url="postgresql://me@db:many/docs", **BLANK)


def test_a_superuser_gets_pgvector_and_roles_and_may_repeat_it(own_database: str) -> None:
    urls = database_urls(database_url=own_database, **BLANK)
    for _ in range(2):
        prepare_database(urls=urls, derived=[urls.app, urls.platform])
    with psycopg.connect(urls.app) as connection:
        assert connection.execute("SELECT current_user, '[1]'::vector::text").fetchone() == ("own_app", "[1]")
    with psycopg.connect(urls.platform) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("own_platform",)


def test_a_new_secret_changes_the_derived_passwords(own_database: str) -> None:
    old = database_urls(database_url=own_database, **BLANK)
    prepare_database(urls=old, derived=[old.app, old.platform])
    new = database_urls(database_url=own_database, app_url="", platform_url="", secret="rotated")
    prepare_database(urls=new, derived=[new.app, new.platform])
    psycopg.connect(new.app).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(old.app)


def test_passwords_reach_the_server_hashed(own_database: str) -> None:
    provision_roles(admin_url=own_database, passwords={"own_hashed": "hidden"})
    with psycopg.connect(own_database) as connection:
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'own_hashed'").fetchone()
    assert row is not None
    assert row[0].startswith("SCRAM-SHA-256$")


def test_an_owner_with_createrole_is_enough(own_database: str) -> None:
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE own_boss LOGIN CREATEROLE PASSWORD 'hidden'")
        connection.execute("CREATE EXTENSION vector")
    owner = re.sub("postgres:[^@]*@", "own_boss:hidden@", own_database)
    urls = database_urls(database_url=owner, **BLANK)
    for _ in range(2):
        prepare_database(urls=urls, derived=[urls.app, urls.platform])
    psycopg.connect(urls.app).close()


def test_an_owner_who_may_not_create_roles_is_told_the_two_variables(
    own_database: str, servers: tuple[Servers, str]
) -> None:
    owner = servers[0].owner_url
    urls = database_urls(database_url=owner.replace("/ragsite?", "/own?"), **BLANK)
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    with pytest.raises(DatabaseUnusable) as error:
        prepare_database(urls=urls, derived=[urls.app, urls.platform])
    assert '"ragsite_owner" of DATABASE_URL may not create roles' in message_of(error)
    assert "RAGSITE_APP_DATABASE_URL and RAGSITE_PLATFORM_DATABASE_URL" in message_of(error)


def test_an_owner_who_may_not_create_pgvector_is_told_who_may(
    own_database: str, servers: tuple[Servers, str]
) -> None:
    owner = servers[0].owner_url.replace("/ragsite?", "/own?")
    with pytest.raises(DatabaseUnusable) as error:
        prepare_database(urls=database_urls(database_url=owner, **BLANK), derived=[])
    assert "run CREATE EXTENSION vector there as a superuser" in message_of(error)


def test_a_role_that_bypasses_row_level_security_is_refused(own_database: str) -> None:
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE own_app LOGIN BYPASSRLS")
    urls = database_urls(database_url=own_database, **BLANK)
    with pytest.raises(DatabaseUnusable) as error:
        prepare_database(urls=urls, derived=[urls.app, urls.platform])
    assert '"own_app" is superuser or bypasses row-level security' in message_of(error)


def test_a_superuser_given_as_the_application_role_is_refused(own_database: str) -> None:
    urls = database_urls(database_url=own_database, app_url=own_database, platform_url="", secret="x")
    with pytest.raises(DatabaseUnusable, match='"postgres" is superuser or bypasses row-level security'):
        prepare_database(urls=urls, derived=[urls.platform])


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DatabaseUnusable) as error:
        check_server(url=f"postgresql://me:hidden@127.0.0.1:{port}/docs")
    assert message_of(error).startswith(f"PostgreSQL at 127.0.0.1:{port}/docs cannot be used (")
    assert "check DATABASE_URL and that the server runs" in message_of(error)


def test_a_wrong_password_is_said_without_it(own_database: str) -> None:
    with pytest.raises(DatabaseUnusable, match="password authentication failed") as error:
        check_server(url=re.sub("postgres:[^@]*@", "postgres:hidden@", own_database))
    message_of(error)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "pgvector is missing on the PostgreSQL server at .*: install pgvector 0.8.4 or newer there"),
        ("('vector', '0.7.0', NULL)", "pgvector 0.7.0 is too old at .* so it takes an upgrade there"),
        ("('vector', '0.8.5', '0.8.3')", "pgvector 0.8.3 is too old at .* ALTER EXTENSION vector UPDATE"),
    ],
)
def test_pgvector_missing_or_too_old_is_said(rows: str, said: str, own_database: str) -> None:
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
        columns = "(name text, default_version text, installed_version text)"
        connection.execute(f"CREATE TABLE other.pg_available_extensions {columns}")
        if rows:
            connection.execute(f"INSERT INTO other.pg_available_extensions VALUES {rows}")
    # A server whose catalogue answers like this: the search path puts our table before the catalogue's view.
    with pytest.raises(DatabaseUnusable, match=said) as error:
        check_server(url=own_database + "&options=" + quote("-c search_path=other,pg_catalog"))
    message_of(error)


def test_a_server_too_old_is_said(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provision, "OLDEST_SERVER", 99)
    with pytest.raises(DatabaseUnusable, match=r"PostgreSQL 18 at .* is too old: ragsite needs 99 or newer"):
        check_server(url=own_database)


def test_a_fit_redis_passes_and_an_unreachable_one_is_named(servers: tuple[Servers, str]) -> None:
    check_redis(url=servers[0].redis_url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DatabaseUnusable) as error:
        check_redis(url=f"redis://:hidden@127.0.0.1:{port}/0")
    assert message_of(error).startswith(f"Redis at 127.0.0.1:{port}/0 cannot be used (")
