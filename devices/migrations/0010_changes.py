"""Changes of many configurations: what is to be planned, and what becomes of each."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0009_versions"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Change",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("patch", "patch"),
                            ("type", "set type"),
                            ("announce", "announce again"),
                            ("undo", "undo"),
                            ("import", "import"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("planning", "is being planned"),
                            ("planned", "is planned"),
                            ("refused", "would be refused in part"),
                            ("applying", "is being applied"),
                            ("stopped", "was stopped"),
                            ("applied", "is applied"),
                        ],
                        default="planning",
                        max_length=10,
                    ),
                ),
                ("remark", models.TextField(blank=True)),
                ("patch", models.TextField(blank=True)),
                ("type_name", models.TextField(blank=True)),
                ("count", models.PositiveIntegerField(default=0)),
                ("taken", models.PositiveIntegerField(default=0)),
                ("goes_on", models.BooleanField(default=False)),
                ("chosen_by", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("reason", models.TextField(blank=True)),
                ("token", models.TextField(null=True)),
                ("applied_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("worked_by", models.CharField(blank=True, max_length=40)),
                ("worked_until", models.DateTimeField(null=True)),
                (
                    "applied_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "type",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="devices.devicetype",
                    ),
                ),
                (
                    "undoes",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="undone_by",
                        to="devices.change",
                    ),
                ),
            ],
            options={
                "ordering": ["-pk"],
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="Part",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("given", models.TextField()),
                (
                    "change",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="parts", to="devices.change"
                    ),
                ),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="ChangeItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("mac_address", models.CharField(max_length=17)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("planned", "would change"),
                            ("unchanged", "stay as they are"),
                            ("refused", "would be refused"),
                            ("changed", "changed"),
                            ("skipped", "left alone"),
                            ("failed", "failed"),
                        ],
                        max_length=10,
                    ),
                ),
                ("before", models.CharField(max_length=64, null=True)),
                ("before_type", models.BigIntegerField(null=True)),
                ("reason", models.TextField(blank=True)),
                ("given", models.TextField(null=True)),
                ("version", models.BigIntegerField(null=True)),
                (
                    "change",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="items",
                        to="devices.change",
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "indexes": [
                    models.Index(
                        models.F("change"), models.F("state"), models.F("mac_address"), name="changeitem_by_state"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("change", "mac_address"), name="one_item_for_each_configuration")
                ],
            },
        ),
    ]
