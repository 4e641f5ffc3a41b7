"""Real git servers on the loopback address: ``git http-backend`` behind HTTP with a password, and OpenSSH's own sshd."""

import base64
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BACKEND = "/usr/lib/git-core/git-http-backend"
IDENTITY = {
    "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.com", "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


def git(folder: Path, *arguments: str, given: bytes | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | IDENTITY,
        input=given,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@dataclass
class Repository:
    """A repository that a server serves, and a work tree that pushes to it."""

    bare: Path
    work: Path

    @classmethod
    def make(cls, root: Path, name: str = "team/handbook.git", *, ids: str = "sha1") -> "Repository":
        bare, work = root / "served" / name, root / f"work-{name.replace('/', '-')}"
        bare.mkdir(parents=True)
        git(bare, "init", "-q", "--bare", "-b", "main", f"--object-format={ids}")
        git(bare, "config", "uploadpack.allowFilter", "true")
        git(bare, "config", "http.receivepack", "false")
        work.mkdir()
        git(work, "init", "-q", "-b", "main", f"--object-format={ids}")
        git(work, "remote", "add", "origin", str(bare))
        return cls(bare=bare, work=work)

    def write(self, files: dict[str, str | bytes | None]) -> None:
        """``None`` removes."""
        for name, content in files.items():
            path = self.work / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(
        self, files: dict[str, str | bytes | None] | None = None, *, branch: str = "main", force: bool = False
    ) -> str:
        self.write(files or {})
        git(self.work, "add", "-A")
        git(self.work, "commit", "-q", "--allow-empty", "-m", "change")
        git(self.work, "push", "-q", *(["--force"] if force else []), "origin", f"HEAD:refs/heads/{branch}")
        return git(self.work, "rev-parse", "HEAD")


@dataclass
class GitSite:
    """``git http-backend`` over HTTP.

    Attributes:
        token: asked for as a password; empty: everybody may read.
        requests: ``(method, path with query, user, body)`` of each.
        answer: instead of git's, ``(status, headers, body)``.
        delay, delay_fetch: seconds before each answer, and before objects are sent.
    """

    root: Path
    url: str = ""
    token: str = ""
    requests: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    answer: tuple[int, dict[str, str], bytes] | None = None
    delay: float = 0
    delay_fetch: float = 0
    cut_after: int = 0

    def fetches(self) -> list[bytes]:
        """The bodies of the requests that asked for objects."""
        return [
            body
            for method, path, _user, body in self.requests
            if method == "POST" and b"command=fetch" in body
        ]

    def address(self, name: str = "team/handbook.git") -> str:
        return f"{self.url}/{name}"


@contextmanager
def git_site(root: Path) -> Iterator[GitSite]:
    site = GitSite(root)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve()

        do_POST = do_GET

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline().strip(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _serve(self) -> None:
            body = self._body()
            user, _colon, password = (
                base64.b64decode(self.headers.get("Authorization", "Basic ")[6:]).decode().partition(":")
            )
            seen = body
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                seen = gzip.decompress(body)
            site.requests.append((self.command, self.path, user, seen))
            time.sleep(site.delay + (site.delay_fetch if b"command=fetch" in seen else 0))
            if site.answer is not None:
                status, headers, text = site.answer
                return self._send(status, headers, text)
            if site.token and password != site.token:
                return self._send(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            path, _mark, query = self.path.partition("?")
            done = subprocess.run(
                [BACKEND],
                env={
                    "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root / "served"), "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "REMOTE_ADDR": "127.0.0.1",
                    "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
                },
                input=body, capture_output=True, check=False,
            )  # fmt: skip
            head, _gap, text = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
            status = int(headers.pop("Status", "200").split(" ")[0])
            return self._send(status, headers, text)

        def _send(self, status: int, headers: dict[str, str], text: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if site.cut_after:
                self.wfile.write(text[: site.cut_after])
                self.wfile.flush()
                self.connection.close()
                return
            with suppress(ConnectionError):  # who asked has turned away
                self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class SshSite:
    """OpenSSH's server; ``public_keys`` may enter as the user who runs the tests."""

    folder: Path
    port: int = 0

    def address(self, bare: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{bare}"

    def new_host_key(self) -> str:
        """Makes the server's key anew (it reads it at each connection); returns its public half."""
        key = self.folder / "host_key"
        for file in (key, key.with_suffix(".pub")):
            file.unlink(missing_ok=True)
        make_key(key)
        return key.with_suffix(".pub").read_text()

    def let_in(self, public_key: str) -> None:
        (self.folder / "authorized_keys").write_text(public_key)


def make_key(path: Path, *options: str) -> str:
    """A new private key's text."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *options], check=True)
    return path.read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ssh_site(folder: Path) -> Iterator[SshSite]:
    folder.mkdir(parents=True, exist_ok=True)
    site = SshSite(folder=folder, port=free_port())
    site.new_host_key()
    site.let_in("")
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # it separates its privileges there
    lines = [
        f"Port {site.port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key", "UsePAM no", "StrictModes no",
        f"AuthorizedKeysFile {folder}/authorized_keys", f"PidFile {folder}/pid", "PasswordAuthentication no",
        "PermitRootLogin prohibit-password", "LogLevel VERBOSE", "AcceptEnv GIT_PROTOCOL",
    ]  # fmt: skip
    (folder / "config").write_text("\n".join(lines) + "\n")
    log = folder / "log"
    process = subprocess.Popen([sshd, "-D", "-f", str(folder / "config"), "-E", str(log)])
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", site.port)) == 0:
                    break
            time.sleep(0.02)
        else:
            raise AssertionError(f"sshd did not start: {log.read_text()}")
        yield site
    finally:
        process.terminate()
        process.wait(timeout=10)
