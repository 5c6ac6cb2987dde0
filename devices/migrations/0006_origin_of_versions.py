"""Versions say by which way they came about; of earlier ones nobody knows.

The columns are added without a default first: the default is that of what is saved now.
"""

from django.db import migrations, models

from iotsupport.editing import origins

MODEL = "historicaldeviceconfig"
WAYS = [("admin", "admin"), ("api", "API"), ("command", "command"), ("bulk", "change of many")]


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0005_waiting_boards"),
    ]

    operations = [
        migrations.AddField(MODEL, "history_way", models.CharField(choices=WAYS, max_length=20, null=True)),
        migrations.AddField(MODEL, "history_token", models.TextField(null=True, verbose_name="API token")),
        migrations.AlterField(
            MODEL,
            "history_way",
            models.CharField(choices=WAYS, default=origins.way, max_length=20, null=True),
        ),
        migrations.AlterField(
            MODEL,
            "history_token",
            models.TextField(default=origins.token, null=True, verbose_name="API token"),
        ),
        migrations.AlterField(MODEL, "history_change_reason", models.TextField(null=True)),
    ]
