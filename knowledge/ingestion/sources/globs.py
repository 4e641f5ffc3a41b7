"""Which files of a source are taken: patterns as people know them, in time that grows with the path alone."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

MAX_LENGTH = 300


def read_patterns(lines: Sequence[str]) -> tuple[str, ...]:
    """Patterns, checked.

    Raises:
        ValueError: names the one that cannot be used.
    """
    for line in lines:
        if len(line) > MAX_LENGTH:
            raise ValueError(f"A pattern has at most {MAX_LENGTH} characters.")
        if "\0" in line or "\\" in line or line.startswith("!"):
            raise ValueError(f"“{line}” cannot be used: write patterns such as *.md, docs/** or **/drafts/*.")
    return tuple(line.strip() for line in lines if line.strip())


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern takes a path.

    ``*.md`` (no slash): any file of such a name; ``docs/*.md``: right below docs; ``docs/`` and ``docs/**``: everything
    below; ``**/drafts/**``: everything below any folder of that name.
    """
    pattern = pattern.removeprefix("/") + "**" if pattern.endswith("/") else pattern.removeprefix("/")
    if "/" not in pattern:
        return fnmatchcase(path.rpartition("/")[2], pattern)
    # How far into the path the pattern may have come: a set, so that no choice of a “**” is ever gone back on.
    names = path.split("/")
    reached = {0}
    for part in pattern.split("/"):
        if part == "**":
            reached = set(range(min(reached, default=len(names)), len(names) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(names) and fnmatchcase(names[at], part)}
    return len(names) in reached


def is_wanted(path: str, *, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a file is taken: by an ``include`` pattern (none: every file is), and by no ``exclude`` pattern."""
    if include and not any(matches(path, pattern) for pattern in include):
        return False
    return not any(matches(path, pattern) for pattern in exclude)
