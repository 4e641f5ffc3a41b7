"""What manage.py does before Django: which commands get servers, and failures in one sentence."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db.utils import OperationalError, ProgrammingError

from ragsite import launch
from ragsite.launch import needs_servers
from tests.knowledge.evaluation.beir_folder import write_beir
from tests.ragsite.helpers import CHECKOUT, scratch_folder

OURS = ("RAGSITE_", "DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "PORT", "DJANGO_SETTINGS_MODULE")


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs manage.py as a newcomer's shell would, without what the test run itself has set."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "manage.py"), *arguments],
        env=inherited | variables,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("up", True),
        ("migrate", True),
        ("ask question --tenant acme", True),
        ("check --database owner", True),
        ("check --deploy", False),
        ("makemigrations --check --dry-run", False),
        ("bench pages", True),
        ("bench load --rounds 1", False),
        ("up --help", False),
        ("--version", False),
        ("help up", False),
        ("collectstatic --noinput", False),
        ("", False),
    ],
)
def test_only_commands_that_talk_to_servers_get_them(line: str, wanted: bool) -> None:
    assert needs_servers(["manage.py", *line.split()]) is wanted


def test_help_starts_nothing() -> None:
    with scratch_folder() as data:
        result = manage("up", "--help", RAGSITE_DATA=str(data))
        assert result.returncode == 0
        assert "--port" in result.stdout
        assert not data.exists()


def test_an_unreachable_database_url_is_one_sentence() -> None:
    with socket.socket() as free, scratch_folder() as data:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        url = f"postgresql://me:hidden@127.0.0.1:{port}/docs"
        result = manage(
            "migrate", RAGSITE_DATA=str(data), DATABASE_URL=url, REDIS_URL="redis://127.0.0.1:1/0"
        )
    assert result.returncode == 1
    assert result.stderr.startswith(f"PostgreSQL at 127.0.0.1:{port}/docs cannot be used")
    assert result.stderr.count("\n") == 1
    assert "hidden" not in result.stderr


def test_bad_variables_are_all_named_at_once() -> None:
    result = manage("migrate", DATABASE_URL="mysql://x", PORT="many", RAGSITE_ENVIRONMENT="dev")
    assert result.returncode == 1
    assert "DATABASE_URL" in result.stderr
    assert "PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_data_folder_in_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = manage("migrate", RAGSITE_DATA=str(tmp_path / "file" / "data"))
    assert result.returncode == 1
    assert "set RAGSITE_DATA to a folder that you may write" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_dependency_points_to_the_virtual_environment() -> None:
    # -S: an interpreter without any site-packages, like a system Python outside of .venv.
    result = subprocess.run(
        [sys.executable, "-S", str(CHECKOUT / "manage.py"), "migrate"],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert result.returncode == 1
    assert "use .venv/bin/python" in result.stderr
    assert result.stderr.count("\n") == 1


def test_manage_py_compiles_on_the_pythons_that_it_turns_away() -> None:
    source = (CHECKOUT / "manage.py").read_text()
    compile(source, "manage.py", "exec", dont_inherit=True)
    import ast

    ast.parse(source, feature_version=(3, 6))


def database_error(kind: type[Exception], state: str | None, words: str = "it failed\nLINE 1") -> Exception:
    error = kind(words)
    error.__cause__ = Exception()
    error.__cause__.sqlstate = state  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("kind", "state", "told"),
    [
        (ProgrammingError, "42P01", "is not migrated to this version: run “manage.py migrate” first"),
        (ProgrammingError, "42703", "is not migrated to this version"),
        (OperationalError, None, "cannot be used (it failed): see that it runs"),
        (OperationalError, "3D000", "cannot be used (it failed)"),
    ],
)
def test_a_database_that_is_away_or_not_migrated_is_one_sentence(
    kind: type[Exception], state: str | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail() -> None:
        raise database_error(kind, state)

    monkeypatch.setattr(launch, "_choose_runner", lambda arguments: fail)
    assert launch.run_command(["manage.py", "version"]) == 1
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "state"),
    # 42501 is what a row says that row-level security keeps out: never to be taken for a missing migration.
    [
        (ProgrammingError, "42601"),
        (ProgrammingError, "42501"),
        (OperationalError, "40P01"),
        (ValueError, None),
    ],
)
def test_every_other_error_is_the_programs_own(
    kind: type[Exception], state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise database_error(kind, state)

    monkeypatch.setattr(launch, "_choose_runner", lambda arguments: fail)
    with pytest.raises(kind):
        launch.run_command(["manage.py", "version"])


@pytest.mark.long
def test_an_evaluation_makes_its_tables_in_a_new_data_folder(tmp_path: Path) -> None:
    folder = write_beir(tmp_path)
    with scratch_folder() as data:
        told = manage("tenant", "list", RAGSITE_DATA=str(data))
        assert told.returncode == 1 and "is not migrated" in told.stderr and "Traceback" not in told.stderr
        done = manage("evaluate", str(folder), "--json", RAGSITE_DATA=str(data))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["documents"] == 4
        again = manage("evaluate", str(folder), RAGSITE_DATA=str(data))
        assert "against the run of" in again.stdout and "is migrated first" not in again.stderr


@pytest.mark.parametrize(("processes", "words"), [(1, []), (3, ["--workers", "3"])])
def test_as_many_web_processes_as_asked_for(processes: int, words: list[str]) -> None:
    from ragsite.core.config import config
    from ragsite.up import _parts

    asked = config().model_copy(update={"web_processes": processes})
    web = next(part for part in _parts(host="127.0.0.1", port=8000, config=asked) if part.name == "web")
    after = web.command[web.command.index("--no-proxy-headers") + 1 :]
    assert after == words


def test_a_forwarded_address_is_believed_of_named_proxies_alone() -> None:
    from ragsite.core.config import config
    from ragsite.up import _parts

    asked = config().model_copy(update={"trusted_proxies": "127.0.0.1, 10.1.0.0/16"})
    for each, words in (
        (config(), ["--no-proxy-headers"]),
        (asked, ["--proxy-headers", "--forwarded-allow-ips", "127.0.0.1,10.1.0.0/16"]),
    ):
        web = next(part for part in _parts(host="127.0.0.1", port=8000, config=each) if part.name == "web")
        assert web.command[-len(words) :] == words
