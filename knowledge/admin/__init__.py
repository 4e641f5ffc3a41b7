"""What is known, what was asked and what it costs, in the admin."""

from knowledge.admin import answers, dead_letters, documents, jobs, prices

__all__ = ["answers", "dead_letters", "documents", "jobs", "prices"]
