from django.apps import AppConfig


class FeedbackConfig(AppConfig):
    """What people thought of the answers."""

    name = "feedback"
    default_auto_field = "django.db.models.BigAutoField"
