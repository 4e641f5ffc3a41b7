"""The suite's own throw-away PostgreSQL and Redis: a plugin that is loaded before Django reads its settings."""

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

# The servers live as long as the first process of the run; xdist's workers inherit their addresses.
_servers = ExitStack()
OURS = ("RAGSITE_", "ANTHROPIC_", "OPENAI_", "AZURE_OPENAI_", "EMBEDDING_")
SERVERS_VARIABLE = "RAGSITE_TEST_SERVERS"


def _make_folder() -> Path:
    """In memory where that is roomy: a truncated table costs half there, and every test ends with truncating all of them."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30
    data = Path(tempfile.mkdtemp(prefix="ragsite-tests-", dir=memory if roomy else None))
    data.chmod(0o711)  # where PostgreSQL's own user cannot enter it, the cluster would lie in /tmp
    return data


def _start_servers() -> None:
    from ragsite.embedded import embedded_servers

    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    os.environ.pop("CELERY_BROKER_URL", None)
    data = _make_folder()
    _servers.callback(shutil.rmtree, data, ignore_errors=True)
    servers = _servers.enter_context(embedded_servers(data=data, durable=False))
    os.environ.update(servers.environment())
    os.environ["RAGSITE_SECRET_KEY"] = servers.secret_key
    os.environ["RAGSITE_DATA"] = str(data)
    os.environ["RAGSITE_MODELS"] = str(Path(sys.prefix) / "ragsite-models")  # built once, not for each run
    os.environ["RAGSITE_ENVIRONMENT"] = "dev"
    os.environ["RAGSITE_EMBEDDING_THREADS"] = "1"  # the workers of xdist share the cores
    os.environ[SERVERS_VARIABLE] = "1"


def _use_own_redis_database() -> None:
    """Each worker of xdist has a Redis database of its own, as it has a PostgreSQL database of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = int(worker.removeprefix("gw")) + 1 if worker else 0
    address, _, _ = os.environ["REDIS_URL"].partition("?")
    os.environ["REDIS_URL"] = f"{address}?db={number}"


if SERVERS_VARIABLE not in os.environ:
    _start_servers()
_use_own_redis_database()


def pytest_unconfigure() -> None:
    _servers.close()
