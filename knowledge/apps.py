from django.apps import AppConfig


class KnowledgeConfig(AppConfig):
    """Documents, retrieval and answers."""

    name = "knowledge"
    default_auto_field = "django.db.models.BigAutoField"
