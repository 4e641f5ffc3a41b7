"""Asks a source's place once, while somebody waits for it: aside, for a bounded time, and few at once for one tenant."""

import threading
from collections import Counter
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any
from uuid import UUID

from django.db import connections

from knowledge.ingestion.sources.base import SourceConnector, SourceError
from knowledge.ingestion.sources.connect import connect
from knowledge.models import Source
from tenants.scope import current_tenant_id

# In one process. Whoever waits in vain leaves a thread behind until its connector has noticed.
AT_ONCE, AT_ONCE_IN_ALL = 2, 16
_lock = threading.Lock()
_under_way: Counter[UUID | None] = Counter()


def ask_source(*, source: Source, seconds: float) -> tuple[str, dict[str, Any]]:
    """What is there, in a sentence, and what the connector learnt.

    Raises:
        SourceError: what is wrong, and what to do; not permanent where there was no answer in time, or no room to ask.
    """
    tenant = current_tenant_id()
    # A folder lies on this machine: it waits for nobody else's place.
    is_counted = source.kind != Source.Kind.FOLDER
    if is_counted:
        _begin(tenant)
    answer: Future[tuple[str, dict[str, Any]]] = Future()
    connectors: list[SourceConnector] = []
    left = threading.Event()

    def look() -> None:
        try:
            with connect(source) as connector:
                connectors.append(connector)
                if left.is_set():
                    connector.stop()
                found = connector.check(), connector.state()
            answer.set_result(found)
        except BaseException as error:
            answer.set_exception(error)
        finally:
            connections.close_all()
            if is_counted:
                _end(tenant)

    # In a thread, because nothing bounds how long the system looks up a name; the end of the process waits for none.
    threading.Thread(target=copy_context().run, args=(look,), name="source-check", daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except TimeoutError:
        left.set()
        for connector in connectors:
            connector.stop()
        raise SourceError(
            f"It did not answer within {seconds:.0f} s: check the address, or try again.", permanent=False
        ) from None


def _begin(tenant: UUID | None) -> None:
    with _lock:
        if _under_way[tenant] >= AT_ONCE or _under_way.total() >= AT_ONCE_IN_ALL:
            raise SourceError(
                "Other sources are being tried at this moment: try again in some seconds.", permanent=False
            )
        _under_way[tenant] += 1


def _end(tenant: UUID | None) -> None:
    with _lock:
        _under_way[tenant] -= 1
        if not _under_way[tenant]:
            del _under_way[tenant]
