"""What members thought of answers, what became of it, and the home page of the admin."""

from feedback.admin import ratings, requests, reviews

__all__ = ["ratings", "requests", "reviews"]
