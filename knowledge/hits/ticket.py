"""What Django finds out while it answers a request that might have been a hit."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from knowledge.answering.journey import Journey
from knowledge.models import Answer

MOST_PIECES = 16

current_ticket: ContextVar["Ticket | None"] = ContextVar("ragsite_hit_ticket", default=None)


@dataclass
class Ticket:
    """Handed in with a request, filled in on its way.

    Attributes:
        tenant_id: as the credential says it; nothing is remembered unless it was right.
        gates: the stamps before the database was asked.
        since: ``time.monotonic()`` of then.
        generation: of the connection that they were read over.
    """

    tenant_id: str
    gates: tuple[bytes, bytes]
    since: float
    generation: int
    journey: Journey | None = None
    answer: Answer | None = None
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    pieces: int = 0

    def take(self, piece: bytes) -> None:
        """Of the response's body. One in many pieces is a model's stream: nothing of it is kept."""
        self.pieces += 1
        self.body = self.body + piece if self.pieces <= MOST_PIECES else b""


def note_answer(*, journey: Journey, answer: Answer) -> None:
    """Of a question that was answered to its end."""
    ticket = current_ticket.get()
    if ticket is not None:
        ticket.journey, ticket.answer = journey, answer
