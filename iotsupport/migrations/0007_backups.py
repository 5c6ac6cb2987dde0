"""Remember the last backup, and which backup an installation came from."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("iotsupport", "0006_tokens_in_words")]

    operations = [
        migrations.CreateModel(
            name="BackupRecord",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("made_at", models.DateTimeField()),
                ("size", models.PositiveBigIntegerField()),
                ("restored_as", models.CharField(default="", max_length=32)),
                ("restored_at", models.DateTimeField(null=True)),
            ],
            options={"default_permissions": ()},
        ),
    ]
