"""Git as a child process that can do nothing but what it is asked: bounded in seconds and bytes, without secrets in
its arguments, without anybody's configuration, hooks or helpers, and only towards the address that was checked.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from knowledge.ingestion.sources.base import SourceError

# Every file that it writes (a pack, above all), and its memory.
MAX_FILE_BYTES = 2 * 2**30
MAX_MEMORY_BYTES = 4 * 2**30
MAX_OUTPUT_BYTES = 64 * 2**20
_KEPT_STDERR = 20_000
_ASKPASS = """#!/bin/sh
case "$1" in
  Username*) printf '%s\\n' "$RAGSITE_GIT_USERNAME" ;;
  *) printf '%s\\n' "$RAGSITE_GIT_PASSWORD" ;;
esac
"""
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.packedGitLimit": "256m",
    "core.packedGitWindowSize": "64m",
    "core.bigFileThreshold": "32m",
    "credential.helper": "",
    "credential.interactive": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "500",
    "http.lowSpeedTime": "30",
    "http.proxy": "",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.allow": "never",
    "protocol.version": "2",
    "transfer.bundleURI": "false",
}


class GitFailed(Exception):
    """Git ended with an error; ``stderr`` is what it said, without secrets."""

    def __init__(self, stderr: str, code: int) -> None:
        super().__init__(stderr[-500:])
        self.stderr = stderr
        self.code = code


@dataclass
class Git:
    """Runs git in a home of its own, which is gone after ``close``.

    Args:
        config: beside ours; goes on the command line, so nothing secret.
        username, password: for the prompts of https.
        ssh: the ssh command line, quoted for the shell; empty: no ssh.
        hidden: what must not appear in any message.
    """

    home: Path
    config: Mapping[str, str] = field(default_factory=dict)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ssh: str = ""
    hidden: Sequence[str] = field(default=(), repr=False)
    _under_way: set["Running"] = field(default_factory=set, init=False, repr=False)
    _is_stopped: bool = field(default=False, init=False)

    def environment(self) -> dict[str, str]:
        found = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": str(self.home / "askpass"),
            "GIT_SSH_COMMAND": self.ssh or "false",
            "GIT_SSH_VARIANT": "ssh",
            "SSH_ASKPASS": "false",
            "RAGSITE_GIT_USERNAME": self.username,
            "RAGSITE_GIT_PASSWORD": self.password,
        }
        if authorities := os.environ.get("SSL_CERT_FILE"):  # a company's own
            found["GIT_SSL_CAINFO"] = authorities
        return found

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        git = shutil.which("git")
        if git is None:
            raise SourceError("git is not installed on this server: tell its operator.", permanent=True)
        settings = [
            part
            for name, value in (_CONFIG | dict(self.config)).items()
            for part in ("-c", f"{name}={value}")
        ]
        # POSIX shells count ulimit -f in blocks of 512 bytes, -v in kilobytes.
        limits = f'ulimit -f {MAX_FILE_BYTES // 512}; ulimit -v {MAX_MEMORY_BYTES // 1024}; exec "$0" "$@"'
        return ["/bin/sh", "-c", limits, git, *settings, *arguments]

    @contextlib.contextmanager
    def start(self, *arguments: str, folder: Path | None = None) -> Iterator["Running"]:
        """A process in a session of its own; whatever remains of it is killed at the end of the block."""
        process = subprocess.Popen(
            self.arguments(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder or self.home,
            env=self.environment(),
            start_new_session=True,
        )
        running = Running(process, self)
        self._under_way.add(running)
        try:
            self._check_wanted()  # only now: whoever stops later finds it
            yield running
        finally:
            self._under_way.discard(running)
            running.kill()

    def stop(self) -> None:
        """From another thread: ends what is under way, and lets nothing begin any more."""
        self._is_stopped = True
        for running in list(self._under_way):
            running.stop()

    def _check_wanted(self) -> None:
        if self._is_stopped:
            raise SourceError("Nobody waits for this any more.", permanent=False)

    def run(
        self,
        *arguments: str,
        seconds: float,
        folder: Path | None = None,
        given: bytes = b"",
        max_bytes: int = MAX_OUTPUT_BYTES,
    ) -> bytes:
        """What git prints.

        Raises:
            GitFailed: it ended with an error.
            SourceError: not in time (not permanent), or it prints more than ``max_bytes``.
        """
        with self.start(*arguments, folder=folder) as running:
            with running.within(seconds):
                feeder = threading.Thread(target=running.feed, args=(given,), daemon=True)
                feeder.start()
                output = running.read_all(max_bytes)
                feeder.join()
                running.finish()
            return output

    def clean(self, text: str) -> str:
        """Words of git's or the server's that may be shown: printable, and without what is secret."""
        for secret in self.hidden:
            for form in {secret, quote(secret, safe="")}:
                text = text.replace(form, "[hidden]")
        return re.sub(r"[^\x20-\x7e\n]", "?", text)


class Running:
    """A git process under way."""

    def __init__(self, process: "subprocess.Popen[bytes]", git: Git) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.process, self.git = process, git
        self.stdin, self.stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._said = bytearray()
        self._too_late = False
        # A full pipe of complaints would stop it.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := self._stderr.read1(8192):  # type: ignore[attr-defined]
                self._said += piece
                del self._said[:-_KEPT_STDERR]

    def feed(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            if data:
                self.stdin.write(data)
            self.stdin.close()

    def read_all(self, max_bytes: int) -> bytes:
        output = bytearray()
        while piece := self.stdout.read(65_536):
            output += piece
            if len(output) > max_bytes:
                raise SourceError(
                    "The repository holds more than can be listed: choose a sub-folder.", permanent=True
                )
        return bytes(output)

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Kills the process when the block takes longer.

        Raises:
            SourceError: it did.
        """
        timer = threading.Timer(seconds, self.stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (GitFailed, OSError, EOFError):
            if not self._too_late:
                raise
        finally:
            timer.cancel()
        if self._too_late:
            raise SourceError(f"The git server did not answer within {seconds:.0f} s.", permanent=False)

    def stop(self) -> None:
        self._too_late = True
        self._end_session()  # whoever reads sees the end of the output

    def finish(self) -> None:
        code = self.process.wait()
        self._listener.join(timeout=2)
        if code:
            raise GitFailed(self.said(), code)

    def said(self) -> str:
        return self.git.clean(bytes(self._said).decode("utf-8", "replace"))

    def kill(self) -> None:
        """Ends the whole session: git's own children (https, ssh, index-pack) too."""
        self._end_session()
        self.process.wait()
        self._listener.join(timeout=2)
        for pipe in (self.stdin, self.stdout, self._stderr):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()

    def _end_session(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def git_home() -> Iterator[Path]:
    """A folder of our own for one connection: the helper that answers prompts, keys, known hosts."""
    with tempfile.TemporaryDirectory(prefix="ragsite-git-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        askpass = home / "askpass"
        askpass.write_text(_ASKPASS)
        askpass.chmod(0o700)
        yield home
