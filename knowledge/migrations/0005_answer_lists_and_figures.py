from django.contrib.postgres.indexes import HashIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Beside running questions: nothing is locked while the indexes are built."""

    atomic = False
    dependencies = [("knowledge", "0004_document_pending_uri")]

    operations = [
        AddIndexConcurrently(
            "answer", models.Index(fields=["tenant", "status", "-created_at"], name="answers_by_status")
        ),
        AddIndexConcurrently(
            "answer", models.Index(fields=["tenant", "model", "-created_at"], name="answers_by_model")
        ),
        AddIndexConcurrently(
            "answer",
            models.Index(
                fields=["tenant", "created_at"],
                include=["user", "status", "answered", "cost_usd", "latency_ms"],
                name="answers_figures",
            ),
        ),
        AddIndexConcurrently("answer", HashIndex(fields=["question"], name="answers_by_question")),
    ]
