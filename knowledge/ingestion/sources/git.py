"""A git repository over https or ssh: one branch, the whole of it or a folder, brought up to date commit by commit."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.sources.base import SourceError, SourceItem
from knowledge.ingestion.sources.git_address import (
    EXAMPLES,
    GitAddress,
    read_address,
    ssh_command,
)
from knowledge.ingestion.sources.git_clone import (
    Clone,
    Entry,
    clones_folder,
    remove_clone,
    remove_clones_of_others,
)
from knowledge.ingestion.sources.git_options import KEPT_KNOWN_HOSTS, GitCredentials, GitOptions, fit_together
from knowledge.ingestion.sources.git_process import Git, GitFailed, git_home
from knowledge.ingestion.sources.globs import is_wanted
from knowledge.ingestion.sources.kinds import (
    SourceKind,
    open_credentials,
    stored_options,
)
from knowledge.ingestion.sources.said import MAX_NAME, UNNAMEABLE, name_some
from knowledge.models import Source
from ragsite.core.config import config

MAX_ITEMS = 200_000
CHECK_SECONDS, LOOK_SECONDS = 9.0, 60.0
BATCH = 500
_LFS = b"version https://git-lfs.github.com/spec/"


class GitConnector:
    """The documents of one commit. Hidden files, links and submodules are passed over."""

    def __init__(
        self,
        *,
        address: GitAddress,
        options: GitOptions,
        credentials: GitCredentials,
        state: dict[str, Any],
        tenant_id: UUID,
        source_id: UUID,
        living: Callable[[], Iterable[UUID]],
    ) -> None:
        self._address, self._options = address, options
        # What is remembered of another server holds for that one.
        self._before = state if state.get("address") == address.url else {}
        self._tenant_id, self._living = tenant_id, living
        self._folder = clones_folder(tenant_id) / str(source_id)
        self._stack = contextlib.ExitStack()
        self._home = self._stack.enter_context(git_home())
        self._git = self._make_git(credentials.values())
        self._clone: Clone | None = None
        self._commit = ""
        self._wanted: list[str] = []
        self._known_before: set[str] = set()
        self._unchanged = False
        self._said: list[str] = []

    def _make_git(self, secrets: dict[str, str]) -> Git:
        address = self._address
        settings = {"remote.origin.url": address.url, f"protocol.{address.scheme}.allow": "always"}
        ssh = ""
        if address.is_ssh:
            ssh = ssh_command(
                home=self._home,
                address=address,
                pinned=str(self._before.get("known_hosts", "")),
                given=self._options.known_hosts,
                private_key=secrets.get("private_key", ""),
            )
        else:
            found = ",".join(f"[{each}]" if ":" in each else each for each in address.resolve())
            settings["http.curloptResolve"] = f"{address.host}:{address.port}:{found}"
        return Git(
            home=self._home,
            config=settings,
            username=secrets.get("username", "") or ("x-access-token" if secrets.get("token") else ""),
            password=secrets.get("token", ""),
            ssh=ssh,
            hidden=[value for name, value in secrets.items() if name != "username"],
        )

    def check(self) -> str:
        ref, commit = self._look(seconds=CHECK_SECONDS)
        return f"The repository answers: {_short(ref)} is at commit {commit[:10]}."

    def list_items(self) -> Iterator[SourceItem]:
        remove_clones_of_others(tenant_id=self._tenant_id, living=self._living())
        clone = self._clone = self._stack.enter_context(
            contextlib.closing(Clone(git=self._git, folder=self._folder))
        )
        ref, commit = self._look(seconds=LOOK_SECONDS)
        try:
            entries = self._entries_of(clone, ref, commit)
        except GitFailed:
            # The clone is a cache: whatever is wrong with it, one made anew is right.
            clone.forget()
            try:
                entries = self._entries_of(clone, ref, commit)
            except GitFailed as error:
                raise self._wrong(error) from None
        files = self._choose(entries)
        sizes = clone.sizes({entry.oid for entry in files})
        self._wanted = [entry.oid for entry in files if entry.oid not in sizes]
        for entry in files:
            yield SourceItem(uri=entry.path, size=sizes.get(entry.oid, 0), fingerprint=entry.oid)

    def _look(self, *, seconds: float) -> tuple[str, str]:
        """The ref that is followed, as the server names it, and the commit that it points to."""
        name = self._options.branch
        asked = [f"refs/heads/{name}", f"refs/tags/{name}", f"refs/tags/{name}^{{}}"] if name else ["HEAD"]
        try:
            told = self._git.run("ls-remote", "origin", *asked, seconds=seconds, max_bytes=1_000_000)
        except GitFailed as error:
            raise self._wrong(error) from None
        rows = (line.split("\t") for line in told.decode("utf-8", "replace").splitlines())
        refs = {row[1]: row[0] for row in rows if len(row) == 2 and row[1] in asked}
        for ref in asked[:2]:
            if commit := refs.get(f"{ref}^{{}}", refs.get(ref, "")):
                return ref, commit
        raise SourceError(
            f"There is no branch or tag “{name}” in the repository (any more): name another. Nothing was deleted."
            if name
            else "There is no repository with a commit at this address (any more). Nothing was deleted.",
            permanent=True,
        )

    def _entries_of(self, clone: Clone, ref: str, commit: str) -> list[Entry]:
        before = str(self._before.get("commit", ""))
        head = clone.head()
        if head != commit:
            head = clone.fetch_commit(ref, commit=commit)
        self._unchanged = before == head
        self._known_before = self._oids_of(clone, before) if before and not self._unchanged else set()
        self._commit = head
        entries = list(clone.entries(head, folder=self._options.folder))
        if not entries and self._options.folder:
            raise SourceError(
                f"There is no folder “{self._options.folder}” at commit {head[:10]}: name another. Nothing was deleted.",
                permanent=True,
            )
        return entries

    def _oids_of(self, clone: Clone, commit: str) -> set[str]:
        """What the last sync had; empty when nobody knows it any more, after a forced push for instance."""
        try:
            if not clone.has(commit):
                clone.fetch_commit(commit, commit=commit, target="refs/ragsite/before")
            return {entry.oid for entry in clone.entries(commit, folder=self._options.folder)}
        except (GitFailed, SourceError):
            return set()

    def _choose(self, entries: list[Entry]) -> list[Entry]:
        files, submodules, links, unnameable = [], [], [], []
        for entry in entries:
            if any(part.startswith(".") for part in entry.path.split("/")):
                continue
            if not is_wanted(entry.path, include=self._options.include, exclude=self._options.exclude):
                continue
            if entry.mode == "160000":
                submodules.append(entry.path)
            elif entry.mode == "120000":
                links.append(entry.path)
            elif len(entry.path) > MAX_NAME or "\ufffd" in entry.path:
                unnameable.append(entry.path[:100])
            elif entry.mode.startswith("100"):
                files.append(entry)
        if len(files) > MAX_ITEMS:
            raise SourceError(
                f"The repository holds more than {MAX_ITEMS} documents: choose a sub-folder.", permanent=True
            )
        self._said += name_some("Submodules are not followed; make sources of them: {}", submodules)
        self._said += name_some("Symbolic links are not followed: {}", links)
        self._said += name_some(UNNAMEABLE, unnameable)
        return files

    def fetch(self, item: SourceItem) -> bytes:
        clone, oid, limit = self._clone, item.fingerprint, config().max_upload_bytes
        if clone is None or not re.fullmatch(r"[0-9a-f]{40,64}", oid):
            raise SourceError("A document is fetched after the list that names it.", permanent=True)
        try:
            found = clone.read(oid, max_bytes=limit)
            if found is None:
                clone.fetch_contents(self._batch_from(oid))
                found = clone.read(oid, max_bytes=limit)
        except GitFailed as error:
            raise self._wrong(error) from None
        if found is None:
            raise FileNotFoundError(2, "the server does not hand it out any more")
        size, data = found
        if size > limit:
            # As with a file: one byte more than allowed says that it is too large, and no more of it is read.
            raise ParseError(
                "too_large", f"It has {size / 2**20:.1f} MB, more than the {limit / 2**20:.0f} MB allowed."
            )
        if data.startswith(_LFS) and size < 1024:
            raise ParseError(
                "git_lfs",
                "Its content is kept outside of the repository (Git LFS), which is not fetched: upload it.",
            )
        return data

    def _batch_from(self, oid: str) -> list[str]:
        """This one, and those that will be asked for next: what the last sync did not have."""
        if self._unchanged:
            return [oid]
        start = self._wanted.index(oid) if oid in self._wanted else len(self._wanted)
        ahead = [each for each in self._wanted[start:] if each not in self._known_before][:BATCH]
        self._wanted = self._wanted[start:]
        return list(dict.fromkeys([oid, *ahead]))

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = {"address": self._address.url}
        if self._commit:
            found |= {"commit": self._commit, "said": self._said}
        if self._address.is_ssh and (pinned := self._pinned()):
            found["known_hosts"] = pinned
        return found

    def _pinned(self) -> str:
        """The server's host keys as they were seen the first time; none where an admin gave them."""
        if self._options.known_hosts:
            return ""
        return (self._home / "known_hosts").read_text(errors="replace")[:KEPT_KNOWN_HOSTS]

    def stop(self) -> None:
        self._git.stop()

    def close(self) -> None:
        self._stack.close()

    def _wrong(self, error: GitFailed) -> SourceError:
        return explain(error.stderr, host=self._address.host)


# What git, curl and ssh say → what it means and what to do; whether trying again is in vain.
_MEANINGS: list[tuple[str, str, bool]] = [
    (r"host key verification failed|remote host identification has changed",
     "The ssh server shows another host key than before. When its key was changed on purpose, enter the new one (host "
     "keys of the ssh server); otherwise somebody stands between.", True),
    (r"permission denied \(|too many authentication failures",
     "The ssh server does not accept the deploy key: add its public half to the repository.", True),
    (r"error in libcrypto|invalid format|load key",
     "The deploy key cannot be read: enter it again.", True),
    (r"authentication failed|could not read (username|password)|invalid (username|credentials)|returned error: 40[13]|"
     r"http basic: access denied|terminal prompts disabled",
     "The server asks for credentials, or does not accept those that are stored: enter a token that may read "
     "this repository.", True),
    (r"repository .*not found|returned error: 404|does not (exist|appear to be a git repository)|project .*not be found|"
     r"not valid: is this a git repository",
     "There is no repository at this address, or these credentials may not see it.", True),
    (r"redirect|returned error: 30\d",
     "The server redirects to another address: enter that one.", True),
    (r"certificate|ssl peer|gnutls_handshake|tls",
     "The server's certificate is not one that this server trusts.", True),
    (r"couldn't find remote ref|not our ref|no such remote ref",
     "The branch has just changed: try again.", False),
    (r"file size limit|file too large|sigxfsz|exceed.* size", "The repository is too large: choose a sub-folder.", True),
    (r"no space left|disk quota", "The server's disk is full: tell its operator.", False),
    (r"could(n't| not) connect|connection (refused|timed out|reset|closed)|timed out|no route|low speed|too slow|"
     r"early eof|hung up|rpc failed|unexpected disconnect|empty reply|returned error: (429|5\d\d)|failed to connect",
     "The git server {host} cannot be reached, or breaks off: try later.", False),
]  # fmt: skip


def explain(stderr: str, *, host: str) -> SourceError:
    """What git said, as what it means and what to do."""
    for pattern, words, permanent in _MEANINGS:
        if re.search(pattern, stderr, re.IGNORECASE):
            return SourceError(words.format(host=host), permanent=permanent)
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    return SourceError(
        f"git could not read the repository: {last[:200] or 'it gave no reason'}.", permanent=False
    )


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def _connect(source: Source) -> GitConnector:
    return GitConnector(
        address=read_address(source.path),
        options=stored_options(source, GitOptions),
        credentials=open_credentials(source, GitCredentials),
        state=source.state,
        tenant_id=source.tenant_id,
        source_id=source.pk,
        living=lambda: Source.objects.filter(kind=Source.Kind.GIT).values_list("pk", flat=True),
    )


KIND = SourceKind(
    kind=Source.Kind.GIT,
    title=_("Git repository"),
    place=_("Address"),
    hint=_("Over https or ssh; only the newest commit is fetched."),
    example=EXAMPLES,
    read_place=lambda typed, options: read_address(typed).url,
    connect=_connect,
    options=GitOptions,
    credentials=GitCredentials,
    fit_together=fit_together,
    forget=lambda tenant_id, source_id: remove_clone(tenant_id=tenant_id, source_id=source_id),
)
