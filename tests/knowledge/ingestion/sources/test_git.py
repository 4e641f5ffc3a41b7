"""Git repositories over https and ssh, from real servers: what is fetched and what not, and what is said of failures."""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.sources.base import SourceItem
from knowledge.ingestion.sources.git import GitConnector, explain
from knowledge.ingestion.sources.git_address import read_address
from knowledge.ingestion.sources.git_clone import Clone, clones_folder
from knowledge.ingestion.sources.git_options import GitCredentials, GitOptions
from tests.knowledge.ingestion.sources.failures import fails
from tests.knowledge.ingestion.sources.git_servers import (
    GitSite,
    Repository,
    SshSite,
    git,
    git_site,
    make_key,
    ssh_site,
)
from tests.knowledge.ingestion.sources.sites import Resolver, resolver

__all__ = ["resolver"]

TENANT, SOURCE, OTHER = (uuid.UUID(int=number) for number in (1, 2, 3))
TOKEN = "ghp_t0p-s3cret/tok&n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, configure: Any) -> Path:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1", RAGSITE_DATA=tmp_path / "data")
    return tmp_path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.make(tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GitSite]:
    with git_site(tmp_path) as site:
        yield site


Connect = Callable[..., GitConnector]


@pytest.fixture
def connect(site: GitSite) -> Iterator[Connect]:
    made: list[GitConnector] = []

    def make(
        *,
        url: str = "",
        state: Any = None,
        secrets: Any = None,
        living: Any = (SOURCE, OTHER),
        **options: Any,
    ) -> Any:
        connector = GitConnector(
            address=read_address(url or site.address()),
            options=GitOptions(**options),
            credentials=GitCredentials(
                **(secrets if secrets is not None else {"token": TOKEN} if site.token else {})
            ),
            state=state or {},
            tenant_id=TENANT,
            source_id=SOURCE,
            living=lambda: living,
        )
        made.append(connector)
        return connector

    yield make
    for connector in made:
        connector.close()


def read_all(connector: GitConnector) -> dict[str, bytes]:
    return {item.uri: connector.fetch(item) for item in list(connector.list_items())}


def names(connector: GitConnector) -> list[str]:
    with closing(connector):
        return [item.uri for item in connector.list_items()]


def sync(
    connect: Connect, known: dict[str, str], state: Any = None, **options: Any
) -> tuple[dict[str, bytes], Any, dict[str, str]]:
    """As a sync does it: only what has another fingerprint is fetched. Returns that, the state, and all fingerprints."""
    connector = connect(state=state, **options)
    items = list(connector.list_items())
    got = {item.uri: connector.fetch(item) for item in items if known.get(item.uri) != item.fingerprint}
    state = connector.state()
    connector.close()
    return got, state, {item.uri: item.fingerprint for item in items}


# What is taken


def test_a_branch_is_read_whole(repository: Repository, site: GitSite, connect: Connect) -> None:
    site.token = TOKEN
    commit = repository.commit(
        {
            "a.md": "# A\n",
            "docs/b.md": "# B\n",
            "docs/deep/ü.txt": "ü\n",
            ".github/c.md": "hidden",
            "docs/.d.md": "hidden",
        }
    )
    connector = connect()
    assert connector.check() == f"The repository answers: HEAD is at commit {commit[:10]}."
    assert not clones_folder(TENANT).exists(), "a check keeps nothing"
    items = list(connector.list_items())
    assert [item.uri for item in items] == ["a.md", "docs/b.md", "docs/deep/ü.txt"]
    assert items[0].fingerprint == git(repository.work, "rev-parse", "HEAD:a.md")
    assert [connector.fetch(item) for item in items] == [b"# A\n", b"# B\n", "ü\n".encode()]
    assert connector.state()["commit"] == commit
    assert len(site.fetches()) == 2, "the trees, then all contents at once"
    assert {user for _m, _p, user, _b in site.requests} == {"", "x-access-token"}


def test_only_what_is_new_is_fetched(repository: Repository, site: GitSite, connect: Connect) -> None:
    files = {f"docs/{n:03}.md": f"# Page {n}\n" for n in range(60)}
    repository.commit(dict(files))
    got, state, known = sync(connect, {})
    assert len(got) == 60
    site.requests.clear()
    got, state, known = sync(connect, known, state)
    assert got == {} and not site.fetches(), "an unchanged commit: nothing is fetched"
    assert len(site.requests) <= 2

    repository.commit({"docs/000.md": "# Changed\n", "docs/001.md": None, "new.md": "# New\n"})
    git(repository.work, "mv", "docs/002.md", "moved.md")
    repository.commit()
    site.requests.clear()
    moved = known["docs/002.md"]
    got, state, known = sync(connect, known, state)
    assert got == {"docs/000.md": b"# Changed\n", "new.md": b"# New\n", "moved.md": b"# Page 2\n"}
    assert known["moved.md"] == moved, "a moved file has the fingerprint that it had"
    assert "docs/001.md" not in known and "docs/002.md" not in known
    trees, contents = site.fetches()
    assert contents.count(b"want ") == 2, "what was moved is here already"
    assert b"have " in trees

    # The clone is a cache: without it the next run costs the trees again, and of the contents what is new.
    for file in sorted(clones_folder(TENANT).rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    repository.commit({"docs/000.md": "# Changed again\n"})
    site.requests.clear()
    got, state, known = sync(connect, known, state)
    assert got == {"docs/000.md": b"# Changed again\n"}
    assert sum(body.count(b"want ") for body in site.fetches()) == 3  # two commits' trees, one content


def test_a_branch_a_tag_and_a_folder_are_chosen(repository: Repository, connect: Connect) -> None:
    repository.commit({"docs/a.md": "a", "docsy/b.md": "b", "top.md": "t"})
    git(repository.work, "tag", "-a", "v1.0", "-m", "one")
    git(repository.work, "push", "-q", "origin", "v1.0")
    repository.commit({"docs/c.md": "c"}, branch="feature/next")
    assert names(connect(folder="docs")) == ["docs/a.md"]
    assert names(connect(branch="feature/next", folder="/docs/")) == ["docs/a.md", "docs/c.md"]
    assert names(connect(branch="v1.0")) == ["docs/a.md", "docsy/b.md", "top.md"]
    assert connect(branch="v1.0").check().startswith("The repository answers: v1.0 is at commit ")
    assert names(connect(include=["docs/**"], exclude=["*.txt"])) == ["docs/a.md"]
    assert names(connect(branch="feature/next", exclude=["docs/c.*", "top.md"])) == [
        "docs/a.md",
        "docsy/b.md",
    ]


def test_links_submodules_and_lfs_are_said_and_not_followed(repository: Repository, connect: Connect) -> None:
    repository.write({"a.md": "a", "big.pdf": LFS})
    os.symlink("/etc/passwd", repository.work / "link.md")
    other = "1234567890123456789012345678901234567890"
    git(repository.work, "update-index", "--add", "--cacheinfo", f"160000,{other},vendor/lib")
    git(repository.work, "add", "a.md", "big.pdf", "link.md")
    git(repository.work, "commit", "-q", "-m", "all kinds")
    git(repository.work, "push", "-q", "origin", "HEAD:main")
    connector = connect()
    items = {item.uri: item for item in connector.list_items()}
    assert set(items) == {"a.md", "big.pdf"}
    with pytest.raises(ParseError, match="Git LFS"):
        connector.fetch(items["big.pdf"])
    assert connector.fetch(items["a.md"]) == b"a"
    said = " ".join(connector.state()["said"])
    assert "Submodules are not followed; make sources of them: vendor/lib." in said
    assert "Symbolic links are not followed: link.md." in said


def test_a_file_above_the_limit_is_never_read(
    repository: Repository, configure: Any, connect: Connect
) -> None:
    configure(RAGSITE_MAX_UPLOAD_BYTES=2000)
    repository.commit({"big.txt": "x" * 5000, "fits.txt": "y" * 2000, "small.txt": "z"})
    connector = connect()
    big, fits, small = connector.list_items()
    with pytest.raises(ParseError, match="MB allowed"):
        connector.fetch(big)
    assert connector.fetch(small) == b"z" and len(connector.fetch(fits)) == 2000
    connector.close()
    assert [item.size for item in connect().list_items()] == [5000, 2000, 1], "what is here tells its size"


# What happens to repositories


def test_history_that_was_rewritten_is_followed(repository: Repository, connect: Connect) -> None:
    repository.commit({"a.md": "a", "b.md": "b"})
    _got, state, known = sync(connect, {})
    git(repository.work, "checkout", "-q", "--orphan", "fresh")
    repository.write({"b.md": None, "a.md": "rewritten"})
    commit = repository.commit(force=True)
    got, state, known = sync(connect, known, state)
    assert got == {"a.md": b"rewritten"} and set(known) == {"a.md"} and state["commit"] == commit


@pytest.mark.parametrize("what", ["branch", "folder", "commits"])
def test_a_branch_or_folder_that_is_gone_deletes_nothing(
    repository: Repository, connect: Connect, what: str, tmp_path: Path, site: GitSite
) -> None:
    """An error, not an empty list, which would delete every document."""
    if what == "commits":
        Repository.make(tmp_path, "empty.git")
        error = fails(lambda: names(connect(url=site.address("empty.git"))))
        assert "no repository with a commit" in str(error)
    else:
        repository.commit({"docs/a.md": "a"})
        repository.commit(branch="old")
        options = {"branch": "old"} if what == "branch" else {"folder": "docs"}
        assert names(connect(**options)) == ["docs/a.md"]
        if what == "branch":
            git(repository.work, "push", "-q", "origin", ":refs/heads/old")
        else:
            git(repository.work, "mv", "docs", "handbook")
            repository.commit()
        connector = connect(**options)
        error = fails(lambda: names(connector))
        assert f"There is no {what}" in str(error)
    assert "Nothing was deleted" in str(error) and error.permanent


def test_a_broken_clone_is_made_anew(repository: Repository, connect: Connect) -> None:
    repository.commit({"a.md": "a"})
    _got, state, known = sync(connect, {})
    for pack in clones_folder(TENANT).rglob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(b"no pack")
    repository.commit({"b.md": "b"})
    assert sync(connect, known, state)[0] == {"b.md": b"b"}
    [folder] = clones_folder(TENANT).iterdir()
    (folder / "repository.git" / "shallow.lock").write_text("")  # a run that was killed
    repository.commit({"c.md": "c"})
    assert set(read_all(connect(state=state))) == {"a.md", "b.md", "c.md"}


def test_one_run_at_a_time_and_clones_of_gone_sources_are_removed(
    repository: Repository, connect: Connect
) -> None:
    repository.commit({"a.md": "a"})
    stray = clones_folder(TENANT) / str(uuid.uuid4())
    (stray / "repository.git").mkdir(parents=True)
    first = connect()
    list(first.list_items())
    assert not stray.exists()
    error = fails(lambda: names(connect()))
    assert "Another run" in str(error) and not error.permanent
    first.close()
    assert names(connect()) == ["a.md"]


def test_a_tree_that_unfolds_without_end_is_stopped(
    repository: Repository, connect: Connect, monkeypatch: Any
) -> None:
    """Each level names the one below it ten times: a few hundred bytes that list as a hundred thousand files."""
    blob = git(repository.work, "hash-object", "-w", "--stdin", given=b"x")
    tree = git(
        repository.work, "mktree", given="".join(f"100644 blob {blob}\tf{n}\n" for n in range(10)).encode()
    )
    for _level in range(4):
        rows = "".join(f"040000 tree {tree}\td{n}\n" for n in range(10))
        tree = git(repository.work, "mktree", given=rows.encode())
    commit = git(repository.work, "commit-tree", tree, "-m", "bomb")
    git(repository.work, "push", "-q", "origin", f"{commit}:refs/heads/main")
    monkeypatch.setattr("knowledge.ingestion.sources.git_clone.MAX_ENTRIES", 5000)
    error = fails(lambda: names(connect()))
    assert "choose a sub-folder" in str(error) and error.permanent


def push_tree(repository: Repository, *folders: bytes, files: int) -> None:
    """A tree of folders that all hold the same files, with names of any length."""
    blob = git(repository.work, "hash-object", "-w", "--stdin", given=b"# A\n\nWords.\n")
    rows = "".join(f"100644 blob {blob}\tf{n}.md\n" for n in range(files))
    inner = git(repository.work, "mktree", given=rows.encode())
    outer = b"".join(b"40000 " + name + b"\0" + bytes.fromhex(inner) for name in sorted(folders))
    tree = git(
        repository.work, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", given=outer
    )  # fmt: skip
    commit = git(repository.work, "commit-tree", tree, "-m", "long names")
    git(repository.work, "push", "-q", "--force", "origin", f"{commit}:refs/heads/main")


def test_names_without_end_cost_little(repository: Repository, connect: Connect, monkeypatch: Any) -> None:
    long = b"d" * 25_000
    push_tree(repository, b"docs", long, "ä🦉".encode() * 700, files=20)
    connector = connect(include=("*.md",))
    assert [item.uri for item in connector.list_items()] == sorted(f"docs/f{n}.md" for n in range(20))
    (said,) = connector.state()["said"]
    assert "too long" in said and "and 35 more" in said
    with closing(Clone(git=connector._git, folder=connector._folder.with_name("second"))) as clone:
        clone.fetch_commit("refs/heads/main", commit=connector._commit)
        lengths = [len(entry.path) for entry in clone.entries(connector._commit)]
    assert sum(length > 1000 for length in lengths) == 40 and max(lengths) < 6000
    connector.close()
    monkeypatch.setattr("knowledge.ingestion.sources.git_clone.MAX_TREE_BYTES", 300_000)
    error = fails(lambda: names(connect()))
    assert "paths of more than 300,000 bytes: choose a sub-folder" in str(error) and error.permanent
    assert len(names(connect(folder="docs"))) == 20
    push_tree(repository, b"docs", b"d" * 200_000, files=1)
    error = fails(lambda: names(connect()))
    assert "a path of more than 65,536 bytes: choose a sub-folder" in str(error) and error.permanent


def test_a_repository_of_sha_256(
    repository: Repository, site: GitSite, connect: Connect, tmp_path: Path
) -> None:
    longer = Repository.make(tmp_path, "team/longer.git", ids="sha256")
    commit = longer.commit({"a.md": "# A", "docs/b.md": "# B"})
    assert len(commit) == 64
    url = site.address("team/longer.git")
    assert commit[:10] in connect(url=url).check()
    got, state, known = sync(connect, {}, url=url)
    assert got == {"a.md": b"# A", "docs/b.md": b"# B"} and {len(oid) for oid in known.values()} == {64}
    longer.commit({"a.md": "# A, changed"})
    assert sync(connect, known, state, url=url)[0] == {"a.md": b"# A, changed"}
    # What was fetched of a repository of the other kind does no harm.
    repository.commit({"c.md": "# C"})
    assert sync(connect, {}, state)[0] == {"c.md": b"# C"}
    assert sync(connect, {}, url=url)[0].keys() == {"a.md", "docs/b.md"}


# When it fails


@pytest.mark.parametrize(
    ("status", "words", "permanent"),
    [
        (401, "enter a token that may read", True),
        (403, "enter a token that may read", True),
        (404, "no repository at this address", True),
        (500, "cannot be reached, or breaks off", False),
        (503, "cannot be reached, or breaks off", False),
        (302, "redirects to another address", True),
        (200, "no repository with a commit at this address", True),
    ],
)
def test_what_servers_answer_is_explained(
    repository: Repository, site: GitSite, connect: Connect, status: int, words: str, permanent: bool
) -> None:
    site.answer = (
        status,
        {"Location": "http://127.0.0.1:1/x.git/info/refs"} if status == 302 else {},
        b"hello",
    )
    error = fails(connect(secrets={"token": TOKEN}).check)
    assert words in str(error) and error.permanent is permanent


def test_a_wrong_token_is_refused_and_appears_nowhere(
    repository: Repository, site: GitSite, connect: Connect
) -> None:
    repository.commit({"a.md": "a"})
    site.token = "another"
    connector = connect(secrets={"token": TOKEN, "username": "deploy"})
    error = fails(connector.check)
    assert "does not accept" in str(error) and TOKEN not in str(error)
    assert ("deploy") in {user for _m, _p, user, _b in site.requests}
    assert TOKEN not in repr(connector._git)


def test_a_redirect_never_gets_the_token(
    repository: Repository, site: GitSite, connect: Connect, tmp_path: Path
) -> None:
    with git_site(tmp_path) as thief:
        thief.answer = (401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        site.answer = (
            301,
            {"Location": thief.url + "/team/handbook.git/info/refs?service=git-upload-pack"},
            b"",
        )
        fails(connect(secrets={"token": TOKEN}).check)
        assert not thief.requests


def test_secrets_are_in_no_process_list(repository: Repository, site: GitSite, connect: Connect) -> None:
    repository.commit({"a.md": "a"})
    site.token, site.delay = TOKEN, 0.2
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(each.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        connect().check()
    finally:
        done.set()
        watcher.join()
    ours = [line for line in seen if site.url in line]
    assert any("ls-remote" in line for line in ours) and any("git-remote-http" in line for line in ours)
    assert not [line for line in seen if TOKEN in line or "t0p-s3cret" in line]


def test_a_server_that_hangs_is_given_up_and_nothing_of_git_remains(
    repository: Repository, site: GitSite, connect: Connect, monkeypatch: Any
) -> None:
    site.delay = 30
    monkeypatch.setattr("knowledge.ingestion.sources.git.CHECK_SECONDS", 0.7)
    connector, begun = connect(), time.monotonic()
    error = fails(connector.check)
    assert "did not answer within" in str(error) and not error.permanent
    assert time.monotonic() - begun < 5
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert site.url not in listed


def test_an_answer_that_breaks_off_is_no_end(repository: Repository, site: GitSite, connect: Connect) -> None:
    repository.commit({f"{n}.md": f"{n} " * 2000 for n in range(20)})
    connector = connect()
    items = list(connector.list_items())
    site.cut_after = 200
    error = fails(lambda: connector.fetch(items[0]))
    assert not error.permanent
    site.cut_after = 0
    assert connector.fetch(items[0]).startswith(b"0 0")


def test_configuration_of_the_server_and_of_others_is_not_followed(
    repository: Repository, site: GitSite, connect: Connect, tmp_path: Path, monkeypatch: Any
) -> None:
    """Neither a home's rewriting of addresses, nor a proxy or a command of the environment."""
    repository.commit({"a.md": "a"})
    home, marker = tmp_path / "home", tmp_path / "marker"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "http://127.0.0.1:1/"]\n  insteadOf = {site.url}\n')
    for name, value in {
        "HOME": str(home), "http_proxy": "http://127.0.0.1:1", "GIT_SSH_COMMAND": f"touch {marker}",
        "GIT_ASKPASS": f"touch {marker}", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow",
        "GIT_CONFIG_VALUE_0": "always", "GIT_DIR": "/nowhere",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert read_all(connect()) == {"a.md": b"a"}
    assert not marker.exists()


# Names and secrets


@pytest.mark.parametrize(
    ("typed", "host"),
    [
        ("https://xn--fa-hia.example/t/x.git", "xn--fa-hia.example"),
        ("https://faß.example/t/x.git", "xn--fa-hia.example"),
        ("https://xn--exmple-cua.example/t/x.git", "xn--exmple-cua.example"),
        ("https://Plain.example./t/x.git", "plain.example"),
    ],
)
def test_the_name_that_git_asks_for_is_the_one_that_was_checked(
    resolver: Resolver, connect: Connect, typed: str, host: str
) -> None:
    resolver.teach("fass.example", "8.8.8.8")
    resolver.teach(host, "169.254.169.254")
    assert "public internet" in str(fails(lambda: read_address(typed)))
    resolver.teach(host, "1.1.1.1")
    address = read_address(typed)
    assert (address.host, address.resolve()) == (host, ("1.1.1.1",))
    assert httpx2.URL(address.url).raw_host.decode() == host and address.url.endswith("/t/x.git")
    connector = connect(url=typed)
    assert connector._git.config["http.curloptResolve"] == f"{host}:443:1.1.1.1"
    assert connector._git.config["remote.origin.url"] == address.url


def test_secrets_are_taken_out_of_what_git_says(connect: Connect) -> None:
    connector = connect(secrets={"token": TOKEN})
    said = connector._git.clean(f"fatal: {TOKEN} and ghp_t0p-s3cret%2Ftok%26n\x1b[31m")
    assert "s3cret" not in said and "\x1b" not in said
    assert "[hidden]" in str(explain(said, host="host"))


# Over ssh


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshSite]:
    with ssh_site(tmp_path / "sshd") as site:
        yield site


def test_a_deploy_key_over_ssh_and_a_host_key_that_must_stay(
    repository: Repository, ssh: SshSite, connect: Connect, tmp_path: Path
) -> None:
    commit = repository.commit({"a.md": "a"})
    secrets = {"private_key": make_key(tmp_path / "key")}
    url = ssh.address(repository.bare)
    error = fails(connect(url=url, secrets=secrets).check)
    assert "does not accept the deploy key" in str(error) and error.permanent
    ssh.let_in((tmp_path / "key.pub").read_text())

    connector = connect(url=url, secrets=secrets)
    assert commit[:10] in connector.check()
    assert read_all(connector) == {"a.md": b"a"}
    state = connector.state()
    connector.close()
    assert not list(Path(connector._home).parent.glob(f"{connector._home.name}/key")), (
        "the key leaves the disk"
    )
    assert state["known_hosts"].startswith(f"[127.0.0.1]:{ssh.port} ssh-ed25519 ")

    ssh.new_host_key()
    error = fails(connect(url=url, secrets=secrets, state=state).check)
    assert "another host key" in str(error) and error.permanent
    fresh = f"[127.0.0.1]:{ssh.port} {(ssh.folder / 'host_key.pub').read_text()}"
    connector = connect(url=url, secrets=secrets, state=state, known_hosts=fresh)
    assert commit[:10] in connector.check() and "known_hosts" not in connector.state()
    # What was remembered of one server says nothing of another.
    elsewhere = connect(url=url, secrets=secrets, state=state | {"address": "ssh://git@elsewhere/x.git"})
    assert "StrictHostKeyChecking=accept-new" in elsewhere._git.ssh


def test_fetching_without_a_list_is_refused(connect: Connect) -> None:
    assert "after the list" in str(
        fails(lambda: connect().fetch(SourceItem(uri="x", size=0, fingerprint="a" * 40)))
    )
