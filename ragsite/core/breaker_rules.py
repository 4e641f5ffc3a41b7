"""The rules of a breaker, and one that holds within a process alone."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import structlog

from ragsite.core.observability import BREAKER_CHANGES

logger = structlog.get_logger(__name__)

State: TypeAlias = Literal["closed", "open", "half_open"]
Outcome: TypeAlias = Literal["success", "failure", "unknown"]
CHANGES_KEPT = 200


@dataclass(frozen=True)
class BreakerPolicy:
    """``failures`` in a row open it for ``open_seconds``, ``successes`` in a row close it again.

    A probe that has told nothing for ``probe_seconds`` (its process died) gives way to another. A process that has found
    it closed, without a failure, need not look again for ``calm_seconds``.
    """

    failures: int
    open_seconds: float
    successes: int = 2
    probe_seconds: float = 60
    calm_seconds: float = 0


class BreakerOpen(Exception):
    """The call was not made; ``retry_after`` is in seconds."""

    def __init__(self, name: str, *, retry_after: float) -> None:
        super().__init__(
            f"{name} has failed again and again, and is left alone for {retry_after:.0f} seconds."
        )
        self.name = name
        self.retry_after = retry_after


@dataclass(frozen=True)
class Permit:
    """The leave to make one call, whose outcome is to be reported. ``token`` names a probe and is empty otherwise."""

    token: str = ""
    is_local: bool = False
    is_calm: bool = False

    @property
    def is_probe(self) -> bool:
        return bool(self.token)


class LocalBreaker:
    """The same rules within one process; safe to use from several threads."""

    def __init__(self, name: str, policy: BreakerPolicy) -> None:
        self._name, self._policy = name, policy
        self._lock = threading.Lock()
        self.changes: deque[dict[str, Any]] = deque(maxlen=CHANGES_KEPT)
        self.reset()

    def reset(self) -> None:
        self.state: State = "closed"
        self._since = self._until = 0.0
        self._failures = self._successes = 0
        self._probe = ""

    def admit(self, token: str) -> Permit:
        """The leave to call.

        Raises:
            BreakerOpen: it is open, or another call is the probe.
        """
        with self._lock:
            now = time.monotonic()
            if self.state == "closed":
                return Permit(is_local=True)
            if self.state == "open":
                left = self._since + self._policy.open_seconds - now
                if left > 0:
                    raise BreakerOpen(self._name, retry_after=left)
                self._change("half_open", "")
            elif self._probe and self._until > now:
                raise BreakerOpen(self._name, retry_after=self._until - now)
            self._probe, self._until = token, now + self._policy.probe_seconds
            return Permit(token=token, is_local=True)

    def report(self, permit: Permit, outcome: Outcome, reason: str) -> None:
        with self._lock:
            if self.state == "closed" and not permit.is_probe:
                if outcome == "success":
                    self._failures = 0
                elif outcome == "failure":
                    self._failures += 1
                    if self._failures >= self._policy.failures:
                        self._change("open", reason)
            elif self.state == "half_open" and permit.is_probe and permit.token == self._probe:
                self._probe = ""
                if outcome == "failure":
                    self._change("open", reason)
                elif outcome == "success":
                    self._successes += 1
                    if self._successes >= self._policy.successes:
                        self._change("closed", "")

    def _change(self, state: State, reason: str) -> None:
        self.state, self._since = state, time.monotonic()
        self._failures = self._successes = 0
        self._probe = ""
        self.changes.appendleft({"name": self._name, "state": state, "at": time.time(), "reason": reason})
        note_change(self._name, state, reason=reason, alone=True)


def note_change(name: str, state: str, *, reason: str, alone: bool = False) -> None:
    """Logs and counts that a breaker has changed.

    Args:
        alone: this process's own state, as Redis is away.
    """
    BREAKER_CHANGES.labels(name, state).inc()
    log = logger.warning if state == "open" else logger.info
    log("breaker", component=name, state=state, reason=reason, this_process_alone=alone)
