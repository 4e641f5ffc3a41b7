"""A real ASGI server in a thread, on the test database."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


@contextmanager
def serve(*, fast_hits: bool = False, trusted_proxies: str = "") -> Iterator[str]:
    """Serves the application on a free port of the loopback address; yields its URL.

    Args:
        fast_hits: exact cache hits are answered before Django. What a test asks twice would else be recorded a moment later.
        trusted_proxies: addresses whose ``X-Forwarded-For`` the server believes.
    """
    import ragsite.celery  # noqa: F401  tasks that the site sends go to our broker, whichever test ran before
    from ragsite.edge import build_application

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    server = uvicorn.Server(
        uvicorn.Config(
            build_application(fast_hits=fast_hits),
            lifespan="off",
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies,
            log_level="warning",
            timeout_graceful_shutdown=2,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started, "the server did not start"
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
