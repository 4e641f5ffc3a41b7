"""What manage.py does before Django: finds or starts the servers that a command needs."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from ragsite.core.config import DEVELOPMENT_SECRET, Config, ConfigError, read_config
from ragsite.embedded import embedded_servers, read_secrets
from ragsite.embedded_files import StartError
from ragsite.stack import catch_signal
from ragsite.up import EMBEDDED_VARIABLE, HELP, add_arguments, run_up

_WITHOUT_SERVERS = {
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "makemigrations",
    "spectacular",
    "startapp",
    "startproject",
    "test",
    "version",
}
# Benchmarks that start servers of their own, or need none.
_BENCHES_APART = {"load", "streams", "day", "acceptance", "capacity"}
_PREPARES_DATABASE = {"up", "migrate"}
# Works in a tenant of its own, in an empty data folder as well as in any other: there it makes the tables first.
_MIGRATES_EMPTY = {"evaluate"}
_UNMIGRATED = ("42P01", "42703")  # PostgreSQL's “undefined table” and “undefined column”


def run_command(arguments: Sequence[str]) -> int:
    """Runs a management command with the servers that it needs.

    Args:
        arguments: like ``sys.argv``.

    Returns:
        The exit code; every foreseen failure is one sentence on stderr and 1.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
    try:
        with contextlib.ExitStack() as stack:
            run = _choose_runner(arguments)
            if needs_servers(arguments):
                # Without this, SIGTERM would end the process before it could stop the servers.
                for number in (signal.SIGTERM, signal.SIGHUP):
                    catch_signal(number, _leave)
                _prepare_environment(stack, command=arguments[1])
                if arguments[1] in _MIGRATES_EMPTY:
                    _migrate_empty_database()
            try:
                run()
            except Exception as error:
                if (reason := _explain_database_error(error)) is None:
                    raise
                raise StartError(reason) from error
    except (StartError, ConfigError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def needs_servers(arguments: Sequence[str]) -> bool:
    """Whether the command talks to PostgreSQL or Redis."""
    if (
        len(arguments) < 2
        or arguments[1].startswith("-")
        or {"-h", "--help", "--version"} & set(arguments[2:])
    ):
        return False
    if arguments[1] == "check":
        return any(word.startswith("--database") for word in arguments[2:])
    if arguments[1] == "bench" and set(arguments[2:3]) & _BENCHES_APART:
        return False
    return arguments[1] not in _WITHOUT_SERVERS


def _choose_runner(arguments: Sequence[str]) -> Callable[[], None]:
    if arguments[1:2] == ["up"]:
        parser = argparse.ArgumentParser(prog="manage.py up", description=HELP)
        add_arguments(parser)
        options = parser.parse_args(arguments[2:])
        return lambda: run_up(host=options.host, port=options.port, follow_parent=options.follow_parent)
    from django.core.management import execute_from_command_line

    return lambda: execute_from_command_line(list(arguments))


def _migrate_empty_database() -> None:
    """Makes the tables of the embedded database where there are none; one that holds some is its operator's business."""
    if "postgres" not in os.environ.get(EMBEDDED_VARIABLE, "").split():
        return
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    if not connections["owner"].introspection.table_names():
        sys.stderr.write("The data folder is new: its database is migrated first.\n")
        call_command("migrate", verbosity=0)
    connections.close_all()


def _explain_database_error(error: Exception) -> str | None:
    """One sentence for a database that is not migrated or does not answer; ``None`` for every other error."""
    from django.db.utils import OperationalError, ProgrammingError

    state = getattr(error.__cause__, "sqlstate", None)
    if isinstance(error, ProgrammingError) and state in _UNMIGRATED:
        return (
            "The database is not migrated to this version: run “manage.py migrate” first, or “manage.py up”."
        )
    if isinstance(error, OperationalError) and (state is None or state.startswith(("08", "28", "3D", "57P"))):
        told = str(error).strip().partition("\n")[0]
        return f"The database cannot be used ({told}): see that it runs, and that DATABASE_URL is right."
    return None


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _prepare_environment(stack: contextlib.ExitStack, *, command: str) -> None:
    """Sets the variables that settings read, starting embedded servers for those that nobody gave."""
    config = read_config()
    data = config.data.expanduser().resolve()
    os.environ["RAGSITE_DATA"] = str(data)
    own_postgres, own_redis = not config.database_url, not config.redis_url
    if own_postgres or own_redis:
        servers = stack.enter_context(embedded_servers(data=data, postgres=own_postgres, redis=own_redis))
        os.environ.update(servers.environment())
        os.environ[EMBEDDED_VARIABLE] = " ".join(
            name for name, own in (("postgres", own_postgres), ("redis", own_redis)) if own
        )
    secret = config.secret_key
    if secret == DEVELOPMENT_SECRET:
        secret = os.environ["RAGSITE_SECRET_KEY"] = read_secrets(data=data).secret_key
    if not own_postgres:
        _use_own_database(config, secret=secret, prepare=command in _PREPARES_DATABASE)
    if not own_redis and command == "up":
        from ragsite.provision import check_redis

        check_redis(url=config.redis_url)


def _use_own_database(config: Config, *, secret: str, prepare: bool) -> None:
    from ragsite.provision import database_urls, prepare_database

    urls = database_urls(
        database_url=config.database_url,
        app_url=config.app_database_url,
        platform_url=config.platform_database_url,
        secret=secret,
    )
    if prepare:
        pairs = ((config.app_database_url, urls.app), (config.platform_database_url, urls.platform))
        prepare_database(urls=urls, derived=[url for given, url in pairs if not given])
    os.environ["RAGSITE_APP_DATABASE_URL"] = urls.app
    os.environ["RAGSITE_PLATFORM_DATABASE_URL"] = urls.platform
