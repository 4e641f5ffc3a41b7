"""Where a data folder's PostgreSQL lives, and whose it is."""

import json
import os
import pwd
import secrets as random
import shutil
from dataclasses import dataclass
from pathlib import Path

from ragsite.embedded_files import Account, EmbeddedError, choose_socket_folder, make_folder, write_file
from ragsite.embedded_wheel import SYSTEM_FOLDER, can_enter, find_account


@dataclass(frozen=True)
class Cluster:
    """Where one data folder's PostgreSQL lives and what it runs as."""

    home: Path  # mode 0700, owned by the server's user; holds cluster/ and the marks of finished steps
    sockets: Path  # the unix socket's folder
    log: Path
    account: Account | None  # None: the user who starts
    mark: str  # stands in every process's command line

    @property
    def folder(self) -> Path:
        return self.home / "cluster"

    @property
    def pid_file(self) -> Path:
        return self.folder / "postmaster.pid"

    def read_setup(self) -> str:
        """What the last finished set-up of roles and database noted."""
        path = self.home / "setup"
        return path.read_text() if path.exists() else ""

    def write_setup(self, note: str) -> None:
        """Notes a finished set-up, atomically."""
        write_file(self.home / "setup", note, account=self.account)


def locate_cluster(*, data: Path, mark: str, throw_away: bool = False) -> Cluster:
    """Decides, or reads from the data folder, where its PostgreSQL lives.

    As an ordinary user: in the data folder. As root: there too if the server's user can enter it, else below
    /var/lib/ragsite; which one is recorded in the data folder.

    Args:
        data: the data folder.
        mark: stands in the command lines of its servers.
        throw_away: a new cluster that cannot lie in the data folder goes below /tmp, and
            :func:`discard_cluster` removes it.

    Raises:
        EmbeddedError: the data folder is a copy of one that is still there and whose cluster lies
            elsewhere.
    """
    log = data / "log" / "postgresql.log"
    inside = data / "postgresql"
    if os.geteuid() != 0:
        make_folder(inside, mode=0o700)
        return Cluster(
            inside, choose_socket_folder(inside / "sockets", mark=mark, server="pg"), log, None, mark
        )
    home = _read_place(data) or inside
    account = _account_of(home)
    if home == inside and not inside.exists() and not can_enter(account, data):
        base = Path("/tmp") if throw_away else SYSTEM_FOLDER  # noqa: S108
        home = base / f"{mark}-{random.token_hex(4)}"
        _write_place(data, home, throw_away=throw_away)
        make_folder(SYSTEM_FOLDER, mode=0o755)
    make_folder(home, mode=0o700)
    give_folder(home, account)
    sockets = choose_socket_folder(home / "sockets", mark=mark, server="pg")
    give_folder(sockets, account)
    return Cluster(home, sockets, log, account, mark)


def _place_file(data: Path) -> Path:
    return data / "postgresql.json"


def _read_place(data: Path) -> Path | None:
    file = _place_file(data)
    if not file.exists():
        return None
    place = json.loads(file.read_text())
    if place["data"] != str(data):
        other = _place_file(Path(place["data"]))
        if other.exists() and json.loads(other.read_text())["home"] == place["home"]:
            raise EmbeddedError(
                f"{data} is a copy of {place['data']}, whose PostgreSQL lies in {place['home']} and cannot "
                "be shared: set RAGSITE_DATA to a new folder, or remove one of the two."
            )
        _write_place(data, Path(place["home"]), throw_away=place["throw_away"])
    return Path(place["home"])


def _write_place(data: Path, home: Path, *, throw_away: bool) -> None:
    place = {"data": str(data), "home": str(home), "throw_away": throw_away}
    write_file(_place_file(data), json.dumps(place))


def _account_of(home: Path) -> Account:
    """The user that owns the cluster already, so that root and others can take turns; else our own."""
    if home.exists() and (uid := home.stat().st_uid) != 0:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return find_account()
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    return find_account()


def give_folder(folder: Path, account: Account) -> None:
    """Makes the account the owner of a folder and all that is in it: a checkout copied by root is root's."""
    if folder.stat().st_uid == account.uid:
        return
    for path in (*folder.rglob("*"), folder):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def discard_cluster(cluster: Cluster, *, data: Path) -> None:
    """Removes a stopped cluster that was made to be thrown away and lies outside its data folder."""
    file = _place_file(data)
    if file.exists() and json.loads(file.read_text())["throw_away"]:
        shutil.rmtree(cluster.home)
        file.unlink()
