from django.db import migrations

from tenants.rls import READABLE, ProtectTable


class Migration(migrations.Migration):
    dependencies = [("knowledge", "0001_initial"), ("tenants", "0002_row_level_security")]

    operations = [
        ProtectTable(table="knowledge_document", visible=READABLE),
        ProtectTable(table="knowledge_chunk", visible=READABLE),
        ProtectTable(table="knowledge_collection"),
        ProtectTable(table="knowledge_corpus"),
        ProtectTable(table="knowledge_source"),
        ProtectTable(table="knowledge_job"),
        ProtectTable(table="knowledge_conversation"),
        ProtectTable(table="knowledge_conversationshare"),
        ProtectTable(table="knowledge_answer"),
    ]
