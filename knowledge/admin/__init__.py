"""What is known, what was asked and what it costs, in the admin."""

from knowledge.admin import answers, documents, jobs, prices

__all__ = ["answers", "documents", "jobs", "prices"]
