import uuid

import django.db.models.deletion
from django.db import migrations, models

import tenants.scope
from tenants.rls import WHOLE_TENANT, ProtectTable

# Questions and passages tell of documents of any tag.
TABLES = ("knowledge_evaluationset", "knowledge_evaluationcase", "knowledge_evaluationrun")


class Migration(migrations.Migration):
    dependencies = [
        ("knowledge", "0009_ingestion_that_survives"),
        ("tenants", "0004_indexes_of_the_audit_log"),
    ]

    operations = [
        migrations.CreateModel(
            name="EvaluationSet",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("name", models.CharField(max_length=200)),
                ("description", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
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
                "ordering": ["name", "id"],
                "abstract": False,
                "base_manager_name": "objects",
                "default_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="EvaluationRun",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "reader",
                    models.CharField(
                        blank=True,
                        help_text="Whose view was searched; empty: the whole tenant.",
                        max_length=200,
                    ),
                ),
                ("embedder", models.CharField(max_length=300)),
                ("fingerprint", models.CharField(help_text="Of the configuration.", max_length=64)),
                ("config", models.JSONField(default=dict)),
                ("corpus_version", models.BigIntegerField(default=0)),
                ("documents", models.PositiveIntegerField()),
                ("queries", models.PositiveIntegerField()),
                ("metrics", models.JSONField(default=dict)),
                ("results", models.JSONField(default=dict)),
                ("comparison", models.JSONField(default=dict)),
                ("p50_ms", models.FloatField()),
                ("p95_ms", models.FloatField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
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
                (
                    "evaluation_set",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="runs",
                        to="knowledge.evaluationset",
                    ),
                ),
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "abstract": False,
                "base_manager_name": "objects",
                "default_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="EvaluationCase",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "key",
                    models.CharField(
                        help_text="What the question is called from run to run.", max_length=200
                    ),
                ),
                ("question", models.TextField()),
                ("relevant", models.JSONField(default=list)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
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
                (
                    "evaluation_set",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="cases",
                        to="knowledge.evaluationset",
                    ),
                ),
            ],
            options={
                "ordering": ["key", "id"],
                "abstract": False,
                "base_manager_name": "objects",
                "default_manager_name": "objects",
            },
        ),
        migrations.AddConstraint(
            model_name="evaluationset",
            constraint=models.UniqueConstraint(
                fields=("tenant", "name"),
                name="evaluation_set_once_per_tenant",
                violation_error_message="A set of this name exists already.",
            ),
        ),
        migrations.AddIndex(
            model_name="evaluationrun",
            index=models.Index(
                fields=["tenant", "evaluation_set", "-created_at"], name="runs_of_evaluation_set"
            ),
        ),
        migrations.AddConstraint(
            model_name="evaluationcase",
            constraint=models.UniqueConstraint(
                fields=("tenant", "evaluation_set", "key"), name="evaluation_case_once_per_set"
            ),
        ),
        *(ProtectTable(table, WHOLE_TENANT) for table in TABLES),
    ]
