from django.db import migrations

from tenants.rls import ProtectTable


class Migration(migrations.Migration):
    dependencies = [("feedback", "0002_initial"), ("tenants", "0002_row_level_security")]

    operations = [ProtectTable(table="feedback_feedback")]
