"""Versions are found by name, in the order in which they were saved, and keep their numbers when others are forgotten.

The column is null, so that SQLite adds it without writing all versions anew.
"""

from django.db import migrations, models

MODEL, OF_TYPE = "historicaldeviceconfig", "historicaldevicetype"


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0007_types"),
    ]

    operations = [
        migrations.AddField(MODEL, "history_forgotten", models.PositiveIntegerField(editable=False, null=True)),
        migrations.AddIndex(
            MODEL, models.Index(fields=["mac_address", "history_id", "history_date"], name="deviceconfig_by_name")
        ),
        migrations.AddIndex(
            MODEL,
            models.Index(condition=models.Q(("history_type", "-")), fields=["history_id"], name="deviceconfig_deleted"),
        ),
        migrations.AddField(OF_TYPE, "history_forgotten", models.PositiveIntegerField(editable=False, null=True)),
        migrations.AddIndex(
            OF_TYPE, models.Index(fields=["name", "history_id", "history_date"], name="devicetype_by_name")
        ),
        migrations.AddIndex(
            OF_TYPE,
            models.Index(condition=models.Q(("history_type", "-")), fields=["history_id"], name="devicetype_deleted"),
        ),
        migrations.CreateModel(
            name="DeletedConfig",
            fields=[],
            options={
                "verbose_name": "deleted configuration",
                "proxy": True,
                "default_permissions": [],
                "indexes": [],
                "constraints": [],
            },
            bases=("devices.historicaldeviceconfig",),
        ),
    ]
