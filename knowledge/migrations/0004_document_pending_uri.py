from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("knowledge", "0003_prices")]

    operations = [
        migrations.AddField(
            model_name="document",
            name="pending_uri",
            field=models.CharField(
                blank=True,
                default="",
                editable=False,
                help_text="The name that replaces ``uri`` with it.",
                max_length=1000,
            ),
            preserve_default=False,
        ),
    ]
