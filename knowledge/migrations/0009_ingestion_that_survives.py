import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import tenants.scope
from tenants.rls import ProtectTable

# Of several syncs of a source that wait or run the newest goes on. The owner sees no rows under FORCE, so it is lifted for
# the length of this transaction, which nobody else can look into.
END_DOUBLES = """
UPDATE knowledge_job SET state = 'CANCELLED', step = 'cancelled', run = NULL, finished_at = now()
WHERE kind = 'sync' AND state IN ('PENDING', 'PROGRESS') AND id NOT IN (
    SELECT DISTINCT ON (tenant_id, source_id) id FROM knowledge_job
    WHERE kind = 'sync' AND state IN ('PENDING', 'PROGRESS') ORDER BY tenant_id, source_id, created_at DESC)
"""


def end_doubles(apps, schema_editor):
    schema_editor.execute("ALTER TABLE knowledge_job NO FORCE ROW LEVEL SECURITY")
    schema_editor.execute(END_DOUBLES)
    schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    schema_editor.execute("ALTER TABLE knowledge_job FORCE ROW LEVEL SECURITY")


class Migration(migrations.Migration):
    dependencies = [
        ("knowledge", "0008_callbacks"),
        ("tenants", "0004_indexes_of_the_audit_log"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "uri",
                    models.CharField(
                        blank=True, help_text="The document; empty: the job as a whole.", max_length=1000
                    ),
                ),
                ("reason", models.TextField()),
                ("attempts", models.PositiveIntegerField(default=1)),
                (
                    "permanent",
                    models.BooleanField(
                        default=True, help_text="Not tried again while its content is the same."
                    ),
                ),
                ("fingerprint", models.CharField(blank=True, max_length=200)),
                (
                    "release",
                    models.CharField(
                        blank=True, help_text="A newer version may read what this one cannot.", max_length=40
                    ),
                ),
                (
                    "trace_id",
                    models.CharField(blank=True, help_text="In the worker's log lines.", max_length=36),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("failed_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "ordering": ["-failed_at", "-id"],
                "abstract": False,
                "base_manager_name": "objects",
                "default_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="ExpiredItem",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("uri", models.CharField(max_length=1000)),
                ("sha256", models.CharField(max_length=64)),
                ("fingerprint", models.CharField(blank=True, max_length=200)),
                ("current_since", models.DateTimeField()),
            ],
            options={
                "abstract": False,
                "base_manager_name": "objects",
                "default_manager_name": "objects",
            },
        ),
        migrations.AddField(
            model_name="document",
            name="current_since",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="When its content changed last, or it was restored: its age for retention.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="document",
            name="text_sha256",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="Of its words alone: equal for documents that say the same in another file.",
                max_length=64,
            ),
        ),
        migrations.AddField(
            model_name="embedding",
            name="unused_since",
            field=models.DateTimeField(help_text="When no chunk was found to use it.", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="again",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Something has changed since it began: once more after it.",
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="at",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="The document that it is at.",
                max_length=1000,
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="not_before",
            field=models.DateTimeField(
                help_text="It failed for the moment, and is tried again then.", null=True
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="served_at",
            field=models.DateTimeField(help_text="When a worker took it up last.", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="suspects",
            field=models.JSONField(
                db_default={}, default=dict, help_text="Documents at which a worker died, and how often."
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="trace_id",
            field=models.CharField(
                blank=True, db_default="", default="", help_text="In the worker's log lines.", max_length=36
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="waiting_since",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), default=django.utils.timezone.now
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="last_run",
            field=models.JSONField(
                db_default={},
                default=dict,
                editable=False,
                help_text="How its last job ended: job, state, error, finished_at, documents, chunks.",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="attempts",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="How often it was begun since it last got further."
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="started_at",
            field=models.DateTimeField(help_text="When it was begun first.", null=True),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(fields=["tenant", "sha256"], name="documents_by_bytes"),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(fields=["tenant", "text_sha256"], name="documents_by_words"),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "PENDING")),
                fields=["tenant", "waiting_since"],
                name="jobs_waiting",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(fields=["tenant", "-served_at"], name="jobs_served"),
        ),
        migrations.RunPython(end_doubles, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "sync"), ("state__in", ["PENDING", "PROGRESS"])),
                fields=("tenant", "source"),
                name="one_sync_per_source",
                violation_error_message="This source is being synchronised already.",
            ),
        ),
        migrations.AddField(
            model_name="deadletter",
            name="document",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="knowledge.document",
            ),
        ),
        migrations.AddField(
            model_name="deadletter",
            name="job",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to="knowledge.job"
            ),
        ),
        migrations.AddField(
            model_name="deadletter",
            name="source",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="knowledge.source",
            ),
        ),
        migrations.AddField(
            model_name="deadletter",
            name="tenant",
            field=models.ForeignKey(
                default=tenants.scope.current_tenant_id,
                editable=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="tenants.tenant",
            ),
        ),
        migrations.AddField(
            model_name="expireditem",
            name="source",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to="knowledge.source"
            ),
        ),
        migrations.AddField(
            model_name="expireditem",
            name="tenant",
            field=models.ForeignKey(
                default=tenants.scope.current_tenant_id,
                editable=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="tenants.tenant",
            ),
        ),
        migrations.AddIndex(
            model_name="deadletter",
            index=models.Index(fields=["tenant", "-failed_at", "-id"], name="dead_letters_of_tenant"),
        ),
        migrations.AddConstraint(
            model_name="deadletter",
            constraint=models.UniqueConstraint(
                condition=models.Q(("source__isnull", False)),
                fields=("tenant", "source", "uri"),
                name="dead_letter_once_per_item",
            ),
        ),
        migrations.AddConstraint(
            model_name="deadletter",
            constraint=models.UniqueConstraint(
                condition=models.Q(("document__isnull", False), ("source__isnull", True)),
                fields=("tenant", "document"),
                name="dead_letter_once_per_document",
            ),
        ),
        migrations.AddConstraint(
            model_name="expireditem",
            constraint=models.UniqueConstraint(
                fields=("tenant", "source", "uri"), name="expired_once_per_item"
            ),
        ),
        ProtectTable(table="knowledge_deadletter"),
        ProtectTable(table="knowledge_expireditem"),
    ]
