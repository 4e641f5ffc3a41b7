"""The task of a web process that writes the records of hits down."""

import asyncio
import uuid

import structlog

from knowledge.hits.records import BATCH, drop_lease, has_records, hold_lease, write_records
from ragsite.core.hops import run_db

logger = structlog.get_logger(__name__)

EVERY_SECONDS = 0.5
AFTER_FAILURE_SECONDS = 5.0


class RecordWriter:
    """One process writes at a time, whichever comes first; the others look again in half a second."""

    def __init__(self) -> None:
        self._holder = uuid.uuid4().hex
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            seconds = EVERY_SECONDS
            try:
                await self._write_all()
            except Exception as error:
                # Whatever it is, the records stay where they are, and the next try is this task's.
                logger.warning("hits not written down", error=type(error).__name__)
                seconds = AFTER_FAILURE_SECONDS
            await asyncio.sleep(seconds)

    async def _write_all(self) -> None:
        if not await run_db(has_records) or not await run_db(hold_lease, self._holder):
            return
        while await run_db(write_records) == BATCH and await run_db(hold_lease, self._holder):
            pass
        await run_db(drop_lease, self._holder)
