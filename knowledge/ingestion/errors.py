"""Which failures pass by themselves, and how they are told."""

from django.db.utils import InterfaceError, OperationalError

from knowledge.ingestion.sources.base import SourceError
from ragsite.core.problems import Problem


def is_transient(error: BaseException) -> bool:
    """Whether the same work may go well a little later."""
    if isinstance(error, Problem):
        return error.status >= 500
    permanent = getattr(error, "permanent", None)
    if permanent is not None:
        return not permanent
    return isinstance(error, OSError | OperationalError | InterfaceError)


def describe_error(error: Exception) -> str:
    """A failure in words for whoever waits; what only the program can be blamed for is left to the log."""
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, Problem):
        return error.detail
    if isinstance(error, OperationalError | InterfaceError):
        return "The database was away or too busy."
    if isinstance(error, OSError):
        # A plain one without a number is a connector's own, which says in words what happened.
        own = str(error) if type(error) is OSError and error.errno is None else ""
        return f"It could not be read: {error.strerror or own or type(error).__name__}."
    if getattr(error, "permanent", None) is False:
        return str(error)
    return f"An internal error ended this job ({type(error).__name__}): retry it, or tell the operator."
