import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

import tenants.scope
from tenants.rls import ProtectTable


class Migration(migrations.Migration):
    dependencies = [
        ("knowledge", "0010_evaluation"),
        ("tenants", "0004_indexes_of_the_audit_log"),
    ]

    operations = [
        migrations.AddField(
            model_name="embeddingspace",
            name="compare_error",
            field=models.TextField(
                blank=True, db_default="", default="", help_text="Why the last comparison came to nothing."
            ),
        ),
        migrations.AddField(
            model_name="embeddingspace",
            name="comparing_since",
            field=models.DateTimeField(
                blank=True,
                help_text="A worker is comparing it with the one in use, or is about to.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="embeddingspace",
            name="retired_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since when another one is searched; a while later it is dropped.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="evaluationrun",
            name="compared_with",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="knowledge.evaluationrun",
            ),
        ),
        migrations.AddField(
            model_name="evaluationrun",
            name="trial",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Of a model that the tenant was not searched with: later runs are not compared with it.",
            ),
        ),
        migrations.CreateModel(
            name="IndexDay",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("day", models.DateField()),
                ("documents", models.PositiveBigIntegerField(default=0)),
                ("chunks", models.PositiveBigIntegerField(default=0)),
                ("original_bytes", models.PositiveBigIntegerField(default=0)),
                (
                    "withdrawal_ms",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.FloatField(), default=list, size=None
                    ),
                ),
                ("still_found", models.PositiveIntegerField(default=0)),
                (
                    "tenant",
                    models.ForeignKey(
                        default=tenants.scope.current_tenant_id,
                        editable=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "ordering": ["-day"],
                "abstract": False,
                "base_manager_name": "objects",
                "default_manager_name": "objects",
                "constraints": [models.UniqueConstraint(fields=("tenant", "day"), name="index_day_once")],
            },
        ),
        ProtectTable(table="knowledge_indexday"),
    ]
