from django.apps import AppConfig

from tenants.gate import Watch, watch_tables


class KnowledgeConfig(AppConfig):
    """Documents, retrieval and answers."""

    name = "knowledge"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from knowledge.access import readable_targets
        from tenants.audit_log import guard_targets

        guard_targets("document", readable_targets)
        # What an answer rests on beside its asker's rights: these tell of every change of documents too.
        watch_tables(
            {
                "knowledge_corpus": Watch(),
                "knowledge_collection": Watch(),
                "knowledge_modelsettings": Watch(),
                "knowledge_price": Watch(global_=True),
            }
        )
