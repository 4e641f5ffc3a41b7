"""What is known, what was asked and what it costs, and how well it is found, in the admin."""

from knowledge.admin import answers, dead_letters, documents, evaluation, jobs, model_settings, prices

__all__ = ["answers", "dead_letters", "documents", "evaluation", "jobs", "model_settings", "prices"]
