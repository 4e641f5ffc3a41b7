"""A source that is read in a thread of its own, so that whoever waits for it can turn away at once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

from knowledge.ingestion.aside import Aside
from knowledge.ingestion.job_run import JobRun
from knowledge.ingestion.names import holds_no_text
from knowledge.ingestion.sources.base import SourceConnector, SourceItem
from knowledge.ingestion.sources.connect import connect
from knowledge.models import Source

LISTED_AT_ONCE = 500
LISTED_SECONDS = 1.0


@contextmanager
def open_source(*, source: Source, look_round: Callable[[], None]) -> Iterator[tuple[Aside, SourceConnector]]:
    """The connector of a source, and the thread that its calls are made in.

    Args:
        look_round: called about five times a second while a call lasts; what it raises ends the work: the call is told that
            nobody waits for it any more, and the connector is closed after it.

    Raises:
        SourceError: as ``connect``.
    """
    aside = Aside(look_round=look_round)
    manager = connect(source)

    def leave() -> None:
        manager.__exit__(None, None, None)

    try:
        connector = aside.call(manager.__enter__)
    except BaseException:
        aside.close(lambda: None)
        raise
    try:
        yield aside, connector
    finally:
        if aside.is_left_alone:
            connector.stop()
        aside.close(leave)


def list_items(*, aside: Aside, connector: SourceConnector, run: JobRun) -> list[SourceItem]:
    """Every document of a source; of several with the same path the last one.

    They are counted as they come, and so is what is skipped: pictures, sounds, films and fonts.

    Raises:
        SourceError
        JobCancelled, JobLost: by ``run``.
    """
    listing = aside.call(connector.list_items)
    items: dict[str, SourceItem] = {}
    while some := aside.call(lambda: _take_some(listing)):
        seen = len(items)
        for item in some:
            if holds_no_text(item.uri, item.media_type):
                run.list_change("skipped", item.uri)
            else:
                items[item.uri] = item
        run.report(seen=len(items) - seen)
    return list(items.values())


def _take_some(listing: Iterator[SourceItem]) -> list[SourceItem]:
    """The next ones, of a slow source as many as come in a second; none: that was all."""
    ends, some = time.monotonic() + LISTED_SECONDS, []
    for item in islice(listing, LISTED_AT_ONCE):
        some.append(item)
        if time.monotonic() >= ends:
            break
    return some
