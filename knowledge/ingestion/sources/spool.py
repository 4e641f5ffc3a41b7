"""Documents that were fetched while they were listed, on the disk until they are asked for."""

import hashlib
import tempfile
from pathlib import Path

MAX_BYTES = 512 * 2**20


class Spool:
    """By URI; what has no room is not kept, and fetched a second time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ragsite-spool-")
        self._paths: dict[str, Path] = {}
        self._left = MAX_BYTES

    def keep(self, uri: str, data: bytes) -> None:
        if len(data) > self._left:
            return
        path = Path(self._folder.name) / hashlib.sha256(uri.encode()).hexdigest()
        path.write_bytes(data)
        self._left -= len(data)
        self._paths[uri] = path

    def rename(self, old: str, new: str) -> None:
        if old in self._paths:
            self._paths[new] = self._paths.pop(old)

    def take(self, uri: str) -> bytes | None:
        """What was kept, once."""
        path = self._paths.pop(uri, None)
        if path is None:
            return None
        data = path.read_bytes()
        path.unlink()
        self._left += len(data)
        return data

    def close(self) -> None:
        self._folder.cleanup()
