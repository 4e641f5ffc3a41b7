"""What ragsite needs of a PostgreSQL server: a recent one, pgvector, and three roles that are not alike.

The owner runs migrations. The application role owns nothing and never bypasses row-level security. The
platform role does not bypass it either: the policies let it through by name, so that managed servers, where
nobody is superuser, work.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from ragsite.embedded_files import StartError

OLDEST_SERVER = 16
OLDEST_PGVECTOR = (0, 8, 4)
OLDEST_REDIS = (6, 2)
CONNECT_SECONDS = 10
_LONGEST_NAME = 63  # bytes, NAMEDATALEN - 1

_GIVE_BOTH = "set RAGSITE_APP_DATABASE_URL and RAGSITE_PLATFORM_DATABASE_URL"


class DatabaseUnusable(StartError):
    """A PostgreSQL server cannot be used; the message is one sentence that says what to do, without
    passwords.
    """


@dataclass(frozen=True)
class DatabaseUrls:
    """One database through three roles."""

    owner: str
    app: str
    platform: str


def database_urls(*, database_url: str, app_url: str, platform_url: str, secret: str) -> DatabaseUrls:
    """Completes the three URLs of a database.

    Args:
        database_url: the owner's.
        app_url: the application role's, or empty: derived as role ``<database>_app``.
        platform_url: the platform role's, or empty: derived as role ``<database>_platform``.
        secret: derives the passwords of derived roles, HMAC-SHA256(secret, role) (RFC 2104).

    Raises:
        DatabaseUnusable: a URL cannot be read, or a derived name would be too long.
    """
    return DatabaseUrls(
        owner=database_url,
        app=app_url or _derive_url(database_url, suffix="app", secret=secret),
        platform=platform_url or _derive_url(database_url, suffix="platform", secret=secret),
    )


def _derive_url(database_url: str, *, suffix: str, secret: str) -> str:
    try:
        parts = urlsplit(database_url)
        port = parts.port
    except ValueError as error:
        raise DatabaseUnusable(f"DATABASE_URL cannot be read: {error}.") from error
    host = quote(parts.hostname or "", safe=":[]%")
    address = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    role = f"{unquote(parts.path.lstrip('/') or parts.username or '')}_{suffix}"
    if len(role.encode()) > _LONGEST_NAME:
        raise DatabaseUnusable(
            f'The database\'s name is too long to name the role "{role}" after it: {_GIVE_BOTH}.'
        )
    password = hmac.new(secret.encode(), role.encode(), hashlib.sha256).hexdigest()
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("user", "password")]
    return urlunsplit(
        (parts.scheme, f"{quote(role, safe='')}:{password}@{address}", parts.path, urlencode(query), "")
    )


def prepare_database(*, urls: DatabaseUrls, derived: Sequence[str]) -> None:
    """Makes a server of one's own ready for migrations: checked, pgvector created, roles there and
    harmless.

    Args:
        urls: the three roles' URLs.
        derived: those of the URLs whose roles are ours to create.

    Raises:
        DatabaseUnusable: one sentence.
    """
    check_server(url=urls.owner)
    _ensure_vector(urls.owner)
    parts = [urlsplit(url) for url in derived]
    provision_roles(
        admin_url=urls.owner,
        passwords={unquote(part.username or ""): unquote(part.password or "") for part in parts},
    )
    _check_harmless(urls.app, variable="RAGSITE_APP_DATABASE_URL")
    _check_harmless(urls.platform, variable="RAGSITE_PLATFORM_DATABASE_URL")


def check_server(*, url: str) -> None:
    """Checks that the server answers, is PostgreSQL 16 or newer, and has pgvector 0.8.4 or newer.

    Raises:
        DatabaseUnusable: one sentence.
    """
    with _connect(url, variable="DATABASE_URL") as connection:
        major = connection.info.server_version // 10000
        found = connection.execute(
            "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
    where = _place(url)
    if major < OLDEST_SERVER:
        raise DatabaseUnusable(
            f"PostgreSQL {major} at {where} is too old: ragsite needs {OLDEST_SERVER} or newer, "
            "so upgrade it or unset DATABASE_URL to use the embedded one."
        )
    needed = ".".join(map(str, OLDEST_PGVECTOR))
    if found is None:
        raise DatabaseUnusable(
            f"pgvector is missing on the PostgreSQL server at {where}: install pgvector {needed} or newer "
            f"there (on Debian: postgresql-{major}-pgvector)."
        )
    available, installed = found
    version = installed or available
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < OLDEST_PGVECTOR:
        cure = "ALTER EXTENSION vector UPDATE" if installed and available != installed else "an upgrade there"
        raise DatabaseUnusable(
            f"pgvector {version} is too old at {where}: ragsite needs {needed} or newer, so it takes {cure}."
        )


def _ensure_vector(url: str) -> None:
    with _connect(url, variable="DATABASE_URL") as connection:
        if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
            return
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseUnusable(
                f"pgvector is not created in the database at {_place(url)} and the role "
                f'"{connection.info.user}" may not do so: run CREATE EXTENSION vector there as a superuser.'
            ) from error


def provision_roles(*, admin_url: str, passwords: Mapping[str, str]) -> None:
    """Creates log-in roles without special rights, or gives existing ones their passwords; may be repeated.

    Args:
        admin_url: a superuser, or a role with CREATEROLE.
        passwords: by role, in plain text; they leave this process hashed (SCRAM-SHA-256).

    Raises:
        DatabaseUnusable: unreachable, no right to create roles, or a role of that name has rights that it
            must not have.
    """
    with _connect(admin_url, variable="DATABASE_URL") as connection:
        for name, password in passwords.items():
            ensure_role(connection, name=name, password=password)


def ensure_role(
    connection: psycopg.Connection, *, name: str, password: str, may_create_databases: bool = False
) -> None:
    """Creates a log-in role without superuser and BYPASSRLS, or gives the one that exists its password.

    Raises:
        DatabaseUnusable: the connection's role may not do so, or the existing role has rights that it must
            not have.
    """
    found = connection.execute(
        "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %s", [name]
    ).fetchone()
    if found and found[0]:
        raise DatabaseUnusable(_harmful(name))
    hashed = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    verb = "ALTER" if found else "CREATE"
    # CREATE gives no other right by itself; to name the missing ones in ALTER takes the right to have them.
    rights = "LOGIN CREATEDB" if may_create_databases else "LOGIN"
    try:
        connection.execute(
            sql.SQL(f"{verb} ROLE {{}} WITH {rights} PASSWORD {{}}").format(
                sql.Identifier(name), sql.Literal(hashed)
            )
        )
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseUnusable(
            f'The role "{connection.info.user}" of DATABASE_URL may not create roles: {_GIVE_BOTH} to two '
            "roles without SUPERUSER and BYPASSRLS, or grant it CREATEROLE."
        ) from error


def check_redis(*, url: str) -> None:
    """Checks that a Redis of one's own answers and is 6.2 or newer.

    Raises:
        DatabaseUnusable: one sentence.
    """
    import redis  # a third of a second that most commands need not pay

    try:
        with redis.Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS) as client:
            version = str(client.info("server")["redis_version"])
    except (redis.RedisError, ValueError) as error:
        raise DatabaseUnusable(
            f"Redis at {_place(url)} cannot be used ({error}): check REDIS_URL and that the server runs."
        ) from error
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_REDIS:
        raise DatabaseUnusable(
            f"Redis {version} at {_place(url)} is too old: ragsite needs 6.2 or newer, so upgrade it or "
            "unset REDIS_URL to use the embedded one."
        )


def _check_harmless(url: str, *, variable: str) -> None:
    with _connect(url, variable=variable) as connection:
        row = connection.execute(
            "SELECT rolsuper OR rolbypassrls, rolname FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    if row and row[0]:
        raise DatabaseUnusable(_harmful(row[1]))


def _harmful(role: str) -> str:
    return (
        f'The role "{role}" is superuser or bypasses row-level security, so tenants would not be kept apart: '
        f"{_GIVE_BOTH} to roles without SUPERUSER and BYPASSRLS."
    )


def _connect(url: str, *, variable: str) -> psycopg.Connection:
    try:
        return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS)
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()
        raise DatabaseUnusable(
            f"PostgreSQL at {_place(url)} cannot be used ({reason[-1].strip() if reason else 'no answer'}): "
            f"check {variable} and that the server runs."
        ) from error


def _place(url: str) -> str:
    """Host, port and database of a URL: what a message may show."""
    parts = urlsplit(url)
    host = parts.hostname or (parse_qs(parts.query).get("host") or ["the local socket"])[0]
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{host}{port}{parts.path}"
