"""Slow calls to strangers, made in a thread of their own, so that whoever waits for them can turn away at once."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

from django.db import connection, connections

Result = TypeVar("Result")

TICK_SECONDS = 0.2


class Aside:
    """Makes calls one after another in one thread. The caller waits, and looks round meanwhile.

    Args:
        look_round: called about five times a second while a call lasts; what it raises ends the wait, not the call.
    """

    def __init__(self, *, look_round: Callable[[], None]) -> None:
        self._look_round = look_round
        self._calls: SimpleQueue[tuple[Callable[[], Any], list[Any], threading.Event] | None] = SimpleQueue()
        self.is_left_alone = False  # a call goes on that nobody waits for
        # In a test's own transaction another connection could not see the rows.
        self._thread: threading.Thread | None = None
        if not connection.in_atomic_block:
            self._thread = threading.Thread(
                target=copy_context().run, args=(self._serve,), name="aside", daemon=True
            )
            self._thread.start()

    def call(self, function: Callable[[], Result]) -> Result:
        """What ``function`` returns or raises."""
        if self._thread is None:
            self._look_round()
            return function()
        answer: list[Any] = []
        done = threading.Event()
        self._calls.put((function, answer, done))
        try:
            while not done.wait(TICK_SECONDS):
                self._look_round()
        except BaseException:
            self.is_left_alone = True
            raise
        if isinstance(answer[1], BaseException):
            raise answer[1]
        result: Result = answer[0]
        return result

    def close(self, last: Callable[[], None]) -> None:
        """Makes one last call: at once where nothing is going on, else after the call that was left alone."""
        if self._thread is None:
            last()
            return
        if not self.is_left_alone:
            try:
                self.call(last)
            finally:
                self._calls.put(None)
                self._thread.join(timeout=5)
            return
        self._calls.put((last, [], threading.Event()))
        self._calls.put(None)

    def _serve(self) -> None:
        try:
            while (item := self._calls.get()) is not None:
                function, answer, done = item
                try:
                    answer += [function(), None]
                except BaseException as error:  # told to whoever waits, or to nobody
                    answer += [None, error]
                done.set()
        finally:
            connections.close_all()
