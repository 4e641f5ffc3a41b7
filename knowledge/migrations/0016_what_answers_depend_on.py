import django.contrib.postgres.fields
from django.db import migrations, models

# Which of the earlier answers of its conversation a model was sent with a follow-up is not known any more: all of them
# count. Where no model was asked nothing of them went into the answer.
FILL = """
UPDATE knowledge_answer SET depends_on = found.documents
FROM (
    SELECT later.id, array_agg(DISTINCT document) AS documents
    FROM knowledge_answer AS later
    JOIN knowledge_answer AS earlier ON earlier.tenant_id = later.tenant_id
        AND earlier.conversation_id = later.conversation_id
        AND (earlier.created_at, earlier.id) < (later.created_at, later.id)
    CROSS JOIN unnest(earlier.document_ids) AS document
    WHERE later.provider <> 'extractive' OR later.fallback
    GROUP BY later.id
) AS found
WHERE knowledge_answer.id = found.id
"""


def fill_depends_on(apps, schema_editor):
    # The owner sees no rows under FORCE, so it is lifted for the length of this transaction.
    schema_editor.execute("ALTER TABLE knowledge_answer NO FORCE ROW LEVEL SECURITY")
    schema_editor.execute(FILL)
    schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    schema_editor.execute("ALTER TABLE knowledge_answer FORCE ROW LEVEL SECURITY")


class Migration(migrations.Migration):
    dependencies = [("knowledge", "0015_semantic_cache")]

    operations = [
        migrations.AddField(
            model_name="answer",
            name="depends_on",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.UUIDField(),
                db_default=[],
                default=list,
                help_text="Beside its own documents those of the earlier answers that a model had before it.",
                size=None,
            ),
        ),
        migrations.RunPython(fill_depends_on, migrations.RunPython.noop),
    ]
