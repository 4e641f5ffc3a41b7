"""What must hold before a process serves anybody."""

import threading

from ragsite.core.config import config


def refuse_demo_data() -> None:
    """Ends the process when production would serve the demo tenants, whose passwords everyone knows.

    Raises:
        SystemExit: with one sentence.
    """
    if config().environment != "prod":
        return
    found: list[str] = []

    def look() -> None:
        from django.db import connections

        from tenants.models import Tenant
        from tenants.scope import unscoped

        try:
            with unscoped(reason="refuse demo data in production"):
                found.extend(Tenant.objects.filter(is_demo=True).values_list("slug", flat=True))
        finally:
            connections.close_all()

    # A thread: an ASGI server imports its application inside a running event loop, where the ORM refuses to work.
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    if found:
        raise SystemExit(
            f"This database holds demo tenants ({', '.join(found)}) with well-known passwords: "
            "production does not start on it. Give it a database of its own, or delete these tenants."
        )
