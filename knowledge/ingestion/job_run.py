"""A claimed job while it runs: told, watched, given back."""

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from datetime import timedelta
from typing import Any

import structlog
from django.db import connection, connections
from django.db.models import F, Q
from django.db.utils import DatabaseError
from django.utils import timezone

from knowledge.models import Job

logger = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 3.0
WATCH_SECONDS = 0.7  # somebody who cancels sees it end within two seconds
WRITE_SECONDS = 0.5
POLL_SECONDS = 0.05
MAX_ERRORS = 200
MAX_DEATHS = 3  # at one document
MAX_LISTED = 200  # of each kind of change, in the job's result


class JobCancelled(Exception):
    """Somebody asked for the job to end."""


class JobLost(Exception):
    """Another worker has taken the job over; this one must not write any more."""


class JobGivesWay(Exception):
    """The job has had its turn, and others wait, or the worker's time for it is up."""


class JobRun:
    """A claimed job: the only way to write its row while it runs.

    What is reported is gathered and written about twice a second, always a whole of it, so that the counts of the row add
    up whenever it is read: ``seen`` are those that changed, are unchanged or failed, and those that remain.
    """

    def __init__(self, job: Job, run: uuid.UUID) -> None:
        self.job = job
        # A worker died, or something else went wrong, since the job got further: one document at a time.
        self.is_careful = job.attempts > 1
        self.got_further = False
        self._mine = Q(pk=job.pk, run=run, state=Job.State.PROGRESS)
        self._telling = threading.RLock()  # a batch of questions reports from several threads
        self._counts: dict[str, int] = {}
        self._values: dict[str, Any] = {}
        self._errors: list[dict[str, str]] = list(job.errors)
        self._result: dict[str, Any] = dict(job.result or {})
        self._written = self._polled = 0.0
        self._step = job.step
        self._cancelled, self._lost, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._heart: threading.Thread | None = None

    # The heart

    def watch(self) -> None:
        """Keeps the heartbeat and looks for who cancels or takes over, in a thread, until ``leave``."""
        if connection.in_atomic_block:
            return  # in a test's own transaction another connection could not see the row
        self._heart = threading.Thread(target=copy_context().run, args=(self._beat,), daemon=True)
        self._heart.start()

    def leave(self) -> None:
        self._stop.set()
        if self._heart:
            self._heart.join()

    def _beat(self) -> None:
        last = time.monotonic()
        try:
            while not self._stop.wait(WATCH_SECONDS):
                try:
                    if time.monotonic() - last >= HEARTBEAT_SECONDS:
                        last = time.monotonic()
                        Job.objects.filter(self._mine).update(heartbeat_at=timezone.now())
                    self._look()
                except DatabaseError:
                    # The database is away: the work will notice it where it matters.
                    connections.close_all()
        finally:
            connections.close_all()

    def _look(self) -> None:
        asked = Job.objects.filter(self._mine).values_list("cancel_requested", flat=True).first()
        if asked is None and not self._stop.is_set():
            self._lost.set()
        elif asked:
            self._cancelled.set()

    # What the work tells

    def check(self, *, now: bool = False) -> None:
        """Ends the work where it must end; costs next to nothing unless the row is read ``now``.

        Raises:
            JobCancelled, JobLost
        """
        if (now and time.monotonic() - self._polled >= POLL_SECONDS) or (
            self._heart is None and time.monotonic() - self._polled >= WATCH_SECONDS
        ):
            self._polled = time.monotonic()
            self._look()
        if self._lost.is_set():
            raise JobLost
        if self._cancelled.is_set():
            raise JobCancelled

    def report(self, *, step: str | None = None, progress: int | None = None, **counts: int) -> None:
        """Tells step and percent, and adds to the counts (``changed=1``).

        Raises:
            JobCancelled, JobLost: the work must end here.
        """
        with self._telling:
            self._note(step, progress, counts)
        self.check()

    def _note(self, step: str | None, progress: int | None, counts: Mapping[str, int]) -> None:
        for name, more in counts.items():
            self._counts[name] = self._counts.get(name, 0) + more
        if progress is not None:
            self._values["progress"] = min(99, max(0, progress))
        stepped = step is not None and step[:200] != self._step
        if step is not None:
            self._step = self._values["step"] = step[:200]
        if stepped or time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what was reported.

        Raises:
            JobLost
        """
        with self._telling:
            values: dict[str, Any] = {name: F(name) + more for name, more in self._counts.items() if more}
            values |= self._values | {"heartbeat_at": timezone.now()}
            if len(self._errors) != len(self.job.errors):
                values["errors"] = self._errors
            if self._result:
                values["result"] = self._result
            if not Job.objects.filter(self._mine).update(**values):
                raise JobLost
            self.job.errors = list(self._errors)
            self._counts, self._values, self._written = {}, {}, time.monotonic()

    def begin(self, uri: str) -> None:
        """Says which document the work is at: the one at which a worker dies again and again is passed over.

        Written before the document is touched where a worker has died before, else with the next report.
        """
        self._values["at"] = uri[:1000]
        self._step = self._values["step"] = uri[:200]
        if self.is_careful:
            self.write()
        self.report()

    def is_suspect(self, uri: str) -> bool:
        """Whether workers died at a document too often to try it once more."""
        return bool(self.job.suspects.get(uri[:1000], 0) >= MAX_DEATHS)

    def get_further(self) -> None:
        """Something was finished for good: what a worker died of before does not count any more."""
        self._values["at"] = ""
        self.got_further = True
        if self.job.attempts > 1 and self.job.kind != Job.Kind.DOCUMENT:
            self.job.attempts = 1
            self._values["attempts"] = 1

    def add_error(self, *, document: str, reason: str) -> None:
        """One document's own failure; the job goes on."""
        with self._telling:
            if len(self._errors) < MAX_ERRORS:
                self._errors.append({"document": document, "reason": reason})
        self.report(failed=1)

    def list_change(self, kind: str, what: Any) -> None:
        """Adds to what became of documents: ``added``, ``changed``, ``moved``, ``deleted``, ``failed``, ``expired``,
        ``excluded``, and of other files: ``skipped``."""
        totals = self._result.setdefault("totals", {})
        totals[kind] = totals.get(kind, 0) + 1
        listed = self._result.setdefault("changes", {}).setdefault(kind, [])
        if len(listed) < MAX_LISTED:
            listed.append(what)

    def say(self, sentences: Sequence[str]) -> None:
        """What people should know of the source as a whole, in the job's result."""
        self._result.pop("said", None)
        if sentences:
            self._result["said"] = list(sentences)

    def lock(self) -> None:
        """Last in a transaction: holds the job's row, so that nobody takes it over before the commit.

        Not sooner: who cancels writes that row, and so does the heart. After the documents' rows and before the corpus's,
        or two workers might wait for each other.

        Raises:
            JobLost: somebody has.
        """
        if not Job.objects.select_for_update().filter(self._mine).exists():
            raise JobLost

    # Its end

    def finish(self, *, state: str, error: str = "") -> bool:
        """Ends the job; says whether it was still this worker's."""
        step = {"SUCCESS": "done", "CANCELLED": "cancelled"}.get(state, "failed")
        self._values |= {
            "state": state,
            "error": error,
            "finished_at": timezone.now(),
            "step": step,
            "at": "",
        }
        if state == Job.State.SUCCESS:
            self._values["progress"] = 100
        return self._end()

    def give_back(self, *, counts: bool = False) -> bool:
        """Puts the job into the queue again, behind those who waited.

        Args:
            counts: as a try that was in vain.
        """
        self._values |= {
            "state": Job.State.PENDING,
            "run": None,
            "waiting_since": timezone.now(),
            "attempts": self.job.attempts if counts else 0,
        }
        self._values |= {"step": "waiting", "at": ""}
        return self._end()

    def try_again(self, *, error: str, delay: timedelta) -> bool:
        """Puts the job into the queue for later."""
        later = timezone.now() + delay
        self._values |= {"state": Job.State.PENDING, "run": None, "waiting_since": later, "not_before": later}
        self._values |= {"step": "waiting to try again", "error": error, "at": ""}
        return self._end()

    def _end(self) -> bool:
        try:
            self.write()
        except JobLost:
            return False
        return True
