from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("knowledge", "0011_comparisons_and_index_days"),
    ]

    operations = [
        migrations.AddField(
            model_name="document",
            name="note",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="What of its content could not be indexed, although the rest was.",
            ),
        ),
    ]
