"""From async code to the database and back, without keeping a connection."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")

# Bounded: fifty questions that wait for the model need no fifty connections. More threads than these only take the
# interpreter's lock from each other and from the event loop: with eight, a process answered a sixth fewer questions.
_executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="db")


async def run_db(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs a function that uses the ORM in a thread; its connections are given back before this returns.

    Context variables (the scope, the request id) are carried along. In tests the hop stays in the test's own thread, so
    that it sees the test's open transaction.
    """
    if getattr(settings, "HOPS_IN_CALLING_THREAD", False):
        return await sync_to_async(function, thread_sensitive=True)(*args, **kwargs)

    def run() -> R:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    return await sync_to_async(run, thread_sensitive=False, executor=_executor)()
