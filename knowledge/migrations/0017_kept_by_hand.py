from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [
        ("knowledge", "0016_what_answers_depend_on"),
    ]

    operations = [
        migrations.AddField(
            model_name="document",
            name="tagged_by",
            field=models.CharField(
                blank=True,
                choices=[("", "its source"), ("sender", "Sender"), ("hand", "Hand")],
                db_default="",
                default="",
                editable=False,
                help_text="Who chose the tags of a source's document; those that were set by hand stay whatever the source's are.",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="expireditem",
            name="by_hand",
            field=models.BooleanField(db_default=False, default=False, help_text="Deleted by a person."),
        ),
        AddIndexConcurrently(
            "document",
            models.Index(
                condition=models.Q(("tagged_by", "hand")),
                fields=["tenant", "source", "uri"],
                name="documents_tagged_by_hand",
            ),
        ),
    ]
