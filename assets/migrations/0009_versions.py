"""Versions are found by name, in the order in which they were saved, and keep their numbers when others are forgotten.

The column is null, so that SQLite adds it without writing all versions anew.
"""

from django.db import migrations, models

MODEL = "historicalasset"


class Migration(migrations.Migration):
    dependencies = [
        ("assets", "0008_origin_of_versions"),
    ]

    operations = [
        migrations.AddField(MODEL, "history_forgotten", models.PositiveIntegerField(editable=False, null=True)),
        migrations.AddIndex(
            MODEL, models.Index(fields=["filename", "history_id", "history_date"], name="asset_by_name")
        ),
        migrations.AddIndex(
            MODEL,
            models.Index(condition=models.Q(("history_type", "-")), fields=["history_id"], name="asset_deleted"),
        ),
        migrations.CreateModel(
            name="DeletedAsset",
            fields=[],
            options={
                "verbose_name": "deleted asset",
                "proxy": True,
                "default_permissions": [],
                "indexes": [],
                "constraints": [],
            },
            bases=("assets.historicalasset",),
        ),
    ]
