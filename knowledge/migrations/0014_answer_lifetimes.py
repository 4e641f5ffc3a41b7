from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("knowledge", "0013_language_models")]

    operations = [
        migrations.AddField(
            model_name="modelsettings",
            name="cache_seconds",
            field=models.JSONField(
                db_default={},
                default=dict,
                help_text="How long answers may be shown again, by the content class of what they cite, over the defaults.",
            ),
        ),
    ]
