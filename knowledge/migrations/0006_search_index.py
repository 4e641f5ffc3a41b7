import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
import pgvector.django
from django.db import migrations, models

import tenants.scope
from tenants.rls import READABLE, WHOLE_TENANT, ProtectTable

# The vectors that chunks carried move to where equal texts share them. The owner sees no rows under FORCE, so it is
# lifted for the length of this transaction, which nobody else can look into.
TABLES = (
    "knowledge_chunk",
    "knowledge_document",
    "knowledge_tagset",
    "knowledge_embeddingspace",
    "knowledge_embedding",
)
COPY = [
    "UPDATE knowledge_chunk SET embedding_hash = decode(content_hash, 'hex') WHERE content_hash ~ '^[0-9a-f]{64}$'",
    "INSERT INTO knowledge_tagset (id, tenant_id, tags)"
    " SELECT gen_random_uuid(), tenant_id, tags FROM (SELECT DISTINCT tenant_id, tags FROM knowledge_chunk) sets",
    "INSERT INTO knowledge_embeddingspace (id, tenant_id, model, dimensions, state, created_at, activated_at)"
    " SELECT gen_random_uuid(), tenant_id, 'all-MiniLM-L6-v2', 384, 'active', now(), now()"
    " FROM (SELECT DISTINCT tenant_id FROM knowledge_chunk) tenants",
    "INSERT INTO knowledge_embedding (id, tenant_id, space_id, text_hash, vector, created_at)"
    " SELECT DISTINCT ON (c.tenant_id, c.embedding_hash)"
    " gen_random_uuid(), c.tenant_id, s.id, c.embedding_hash, c.embedding::halfvec, now()"
    " FROM knowledge_chunk c JOIN knowledge_embeddingspace s ON s.tenant_id = c.tenant_id"
    " WHERE c.embedding IS NOT NULL AND c.embedding_hash IS NOT NULL",
    "UPDATE knowledge_document SET revision = 1",
]


def copy_vectors(apps, schema_editor):
    for table in TABLES:
        schema_editor.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    for statement in COPY:
        schema_editor.execute(statement)
    # Deferred foreign keys are checked now: a table with checks outstanding cannot be altered.
    schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for table in TABLES:
        schema_editor.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def tenant_fields():
    return [
        ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
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
    ]


OPTIONS = {"abstract": False, "base_manager_name": "objects", "default_manager_name": "objects"}


class Migration(migrations.Migration):
    """Vectors by text and sets of tags, beside the chunks.

    The old columns stay for one release, empty in new rows, so that the code before this one can go on beside it.
    """

    dependencies = [("knowledge", "0005_answer_lists_and_figures")]

    operations = [
        migrations.CreateModel(
            name="TagSet",
            fields=[
                *tenant_fields(),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=60), default=list, size=None
                    ),
                ),
            ],
            options=OPTIONS,
        ),
        migrations.CreateModel(
            name="EmbeddingSpace",
            fields=[
                *tenant_fields(),
                ("model", models.CharField(help_text="The embedder's name.", max_length=300)),
                ("dimensions", models.PositiveIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[("building", "Building"), ("active", "Active"), ("retired", "Retired")],
                        default="building",
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("activated_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={**OPTIONS, "ordering": ["-created_at", "-id"]},
        ),
        migrations.CreateModel(
            name="Embedding",
            fields=[
                *tenant_fields(),
                ("text_hash", models.BinaryField(max_length=32)),
                ("vector", pgvector.django.HalfVectorField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "space",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="knowledge.embeddingspace",
                    ),
                ),
            ],
            options=OPTIONS,
        ),
        migrations.AddConstraint(
            "tagset", models.UniqueConstraint(fields=["tenant", "tags"], name="tag_set_once_per_tenant")
        ),
        migrations.AddConstraint(
            "embeddingspace",
            models.UniqueConstraint(fields=["tenant", "model"], name="embedding_space_once_per_model"),
        ),
        migrations.AddConstraint(
            "embeddingspace",
            models.UniqueConstraint(
                condition=models.Q(("state", "active")), fields=["tenant"], name="one_active_embedding_space"
            ),
        ),
        migrations.AddConstraint(
            "embedding",
            models.UniqueConstraint(fields=["tenant", "space", "text_hash"], name="embedding_once_per_text"),
        ),
        ProtectTable(table="knowledge_tagset", visible=READABLE),
        ProtectTable(table="knowledge_embeddingspace"),
        ProtectTable(table="knowledge_embedding", visible=WHOLE_TENANT),
        migrations.AddField("corpus", "floor", models.BigIntegerField(default=0, db_default=0)),
        migrations.AddField(
            "document",
            "revision",
            models.BigIntegerField(
                db_default=0,
                default=0,
                editable=False,
                help_text="The corpus version at which search had to notice it last.",
            ),
        ),
        migrations.AddField(
            "document",
            "fingerprint",
            models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="What its source said of its content; the same again: unchanged.",
                max_length=200,
            ),
        ),
        migrations.AddIndex(
            "document", models.Index(fields=["tenant", "revision"], name="documents_by_revision")
        ),
        migrations.AddField(
            "chunk",
            "embedding_hash",
            models.BinaryField(
                help_text="Of the text that is embedded: its vector is the one of this hash.",
                max_length=32,
                null=True,
            ),
        ),
        migrations.AddField(
            "chunk",
            "terms",
            models.BinaryField(
                help_text="Its search terms and their counts (``retrieval/analysis.py``).", null=True
            ),
        ),
        migrations.AddIndex(
            "chunk", models.Index(fields=["tenant", "embedding_hash"], name="chunks_by_embedding")
        ),
        migrations.RunPython(copy_vectors, migrations.RunPython.noop),
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE knowledge_chunk ALTER COLUMN search DROP NOT NULL,"
                    " ALTER COLUMN embedding DROP NOT NULL",
                    migrations.RunSQL.noop,
                )
            ],
            state_operations=[
                migrations.RemoveField("chunk", "search"),
                migrations.RemoveField("chunk", "embedding"),
            ],
        ),
        migrations.AlterField(
            "source",
            "kind",
            models.CharField(
                choices=[
                    ("folder", "Folder"),
                    ("git", "git repository"),
                    ("web", "web site"),
                    ("s3", "S3 bucket"),
                    ("push", "pushed by webhook"),
                ],
                default="folder",
                max_length=20,
            ),
        ),
        migrations.AlterField(
            "source",
            "path",
            models.CharField(
                help_text="A folder below the allowed root (RAGSITE_INGEST_ROOT), or the address of what is synchronised.",
                max_length=1000,
            ),
        ),
        migrations.AddField(
            "source",
            "options",
            models.JSONField(
                blank=True, db_default={}, default=dict, help_text="What its kind asks for beside the path."
            ),
        ),
        migrations.AddField(
            "source",
            "credentials",
            models.TextField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="Encrypted; never shown again.",
            ),
        ),
        migrations.AddField(
            "source",
            "hook_secret",
            models.TextField(
                blank=True, db_default="", default="", editable=False, help_text="Encrypted; signs webhooks."
            ),
        ),
        migrations.AddField(
            "source",
            "state",
            models.JSONField(
                db_default={},
                default=dict,
                editable=False,
                help_text="What the connector remembers of the last sync.",
            ),
        ),
    ]
