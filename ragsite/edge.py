"""The application as an ASGI server calls it: what stands before Django, in its order."""

from collections.abc import MutableMapping
from typing import Any

from knowledge.hits.asgi import FastHits
from ragsite.bodies import Application, BodyLimit
from ragsite.core.addresses import read_peer
from ragsite.in_loop import Handler


def build_application(*, fast_hits: bool) -> Application:
    """Django behind what answers or refuses before it. Hits come first: their bodies are short.

    Args:
        fast_hits: whether exact cache hits are answered before Django.
    """
    return PeerAddress(FastHits(BodyLimit(Handler()), enabled=fast_hits))


class PeerAddress:
    """Everything behind it sees an IP address in ``scope["client"]``, or nothing.

    The ASGI server puts there what a trusted proxy's header says, which need not be an address.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        client = scope.get("client")
        if client:
            address = read_peer(client[0])
            if address != client[0]:
                scope["client"] = (address, client[1]) if address else None
        await self._application(scope, receive, send)
