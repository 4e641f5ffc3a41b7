"""Data folders, ordinary users and other processes for the tests of the embedded servers and the stack."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def scratch_folder(name: str = "data") -> Iterator[Path]:
    """A folder that PostgreSQL's own user can enter; pytest's temporary folders are closed to it."""
    parent = Path(tempfile.mkdtemp(prefix="ragsite-test-", dir="/tmp"))
    parent.chmod(0o711)
    try:
        yield parent / name
    finally:
        shutil.rmtree(parent)


def start_holder(
    data: Path, *, durable: bool = True, python: str = sys.executable, user: str | None = None
) -> subprocess.Popen[str]:
    """Another process that uses the servers until its stdin is closed; its first line is what it got."""
    script = (
        "import json, sys, pathlib\n"
        "from ragsite.embedded import embedded_servers\n"
        f"with embedded_servers(data=pathlib.Path({str(data)!r}), durable={durable}) as servers:\n"
        "    print(json.dumps(servers.environment()), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    site = next(path for path in sys.path if path.endswith("site-packages"))
    return subprocess.Popen(
        [python, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{CHECKOUT}:{site}", "PYTHONDONTWRITEBYTECODE": "1"},
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
    )


def end_holder(holder: subprocess.Popen[str]) -> int:
    """Lets a holder leave in peace; returns its exit code."""
    assert holder.stdin is not None
    holder.stdin.close()
    code = holder.wait(timeout=60)
    assert holder.stdout is not None
    holder.stdout.close()
    return code


def python_for(user: str) -> str | None:
    """An interpreter of this version and a checkout that an ordinary user can read, or None."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        probe = f"{candidate} -c pass && test -r '{CHECKOUT}/ragsite/embedded.py'"
        account = pwd.getpwnam(user)
        answer = subprocess.run(
            ["/bin/sh", "-c", probe],
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
        )
        if answer.returncode == 0:
            return candidate
    return None
