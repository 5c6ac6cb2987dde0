"""Types of devices, with a schema that their configurations must fit; those that there are have none."""

import django.db.models.deletion
import simple_history.models
from django.conf import settings
from django.db import migrations, models

import iotsupport.editing.origins

WAYS = [("admin", "admin"), ("api", "API"), ("command", "command"), ("bulk", "change of many")]


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0006_origin_of_versions"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="HistoricalDeviceType",
            fields=[
                ("id", models.BigIntegerField(auto_created=True, blank=True, db_index=True, verbose_name="ID")),
                (
                    "history_way",
                    models.CharField(
                        choices=WAYS,
                        default=iotsupport.editing.origins.way,
                        max_length=20,
                        null=True,
                    ),
                ),
                (
                    "history_token",
                    models.TextField(default=iotsupport.editing.origins.token, null=True, verbose_name="API token"),
                ),
                ("name", models.CharField(max_length=100)),
                ("description", models.TextField(blank=True)),
                ("schema", models.TextField()),
                ("starting_content", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(blank=True, editable=False)),
                ("updated_at", models.DateTimeField(blank=True, editable=False)),
                ("history_change_reason", models.TextField(null=True)),
                ("history_id", models.AutoField(primary_key=True, serialize=False)),
                ("history_date", models.DateTimeField(db_index=True)),
                (
                    "history_type",
                    models.CharField(choices=[("+", "Created"), ("~", "Changed"), ("-", "Deleted")], max_length=1),
                ),
            ],
            options={
                "verbose_name": "historical device type",
                "verbose_name_plural": "historical device types",
                "ordering": ["-history_id"],
                "get_latest_by": "history_id",
            },
            bases=(simple_history.models.HistoricalChanges, models.Model),
        ),
        migrations.CreateModel(
            name="SchemaDraft",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.TextField()),
                ("description", models.TextField()),
                ("schema", models.TextField()),
                ("starting_content", models.TextField()),
                ("based_on", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("tried_after", models.BigIntegerField(default=0, null=True)),
                ("total", models.PositiveIntegerField(default=0)),
                ("tried", models.PositiveIntegerField(default=0)),
                ("misfits", models.PositiveIntegerField(default=0)),
                ("found", models.JSONField(default=list)),
                ("trouble", models.TextField(blank=True)),
            ],
            options={
                "ordering": ["pk"],
                "default_permissions": (),
            },
        ),
        migrations.AddField(
            model_name="deviceconfig",
            name="fits",
            field=models.BooleanField(editable=False, null=True, verbose_name="fits its type"),
        ),
        migrations.CreateModel(
            name="DeviceType",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
                ("folded", models.CharField(editable=False, max_length=400, unique=True)),
                ("description", models.TextField(blank=True)),
                ("schema", models.TextField()),
                ("starting_content", models.TextField(blank=True)),
                ("marks_after", models.BigIntegerField(editable=False, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "updated_by",
                    models.ForeignKey(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["folded"],
            },
        ),
        migrations.AddField(
            model_name="deviceconfig",
            name="type",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="configs",
                to="devices.devicetype",
            ),
        ),
        migrations.AddField(
            model_name="historicaldeviceconfig",
            name="type",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="devices.devicetype",
            ),
        ),
        migrations.AddIndex(
            model_name="deviceconfig",
            index=models.Index(fields=["type", "mac_address"], name="configs_by_type"),
        ),
        migrations.AddIndex(
            model_name="deviceconfig",
            index=models.Index(
                condition=models.Q(("fits", False)), fields=["mac_address"], name="configs_that_do_not_fit"
            ),
        ),
        migrations.AddField(
            model_name="historicaldevicetype",
            name="history_user",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="historicaldevicetype",
            name="updated_by",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="schemadraft",
            name="type",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="drafts", to="devices.devicetype"
            ),
        ),
        migrations.AddField(
            model_name="schemadraft",
            name="typed_by",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
    ]
