from django.db import migrations

from knowledge.llm.prices import DEFAULT_PRICES


def add_prices(apps, schema_editor):
    """The list prices at installation; later changes come with their own migrations or are made in the admin."""
    Price = apps.get_model("knowledge", "Price")
    rows = [
        Price(
            provider=row.provider,
            model=row.model,
            effective_from=row.effective_from,
            min_prompt_tokens=row.min_prompt_tokens,
            input_per_mtok=row.input_per_mtok,
            output_per_mtok=row.output_per_mtok,
            cache_write_factor=row.cache_write_factor,
            cache_read_factor=row.cache_read_factor,
        )
        for row in DEFAULT_PRICES
    ]
    Price.objects.using(schema_editor.connection.alias).bulk_create(rows, ignore_conflicts=True)


class Migration(migrations.Migration):
    dependencies = [("knowledge", "0002_row_level_security")]

    operations = [migrations.RunPython(add_prices, migrations.RunPython.noop)]
