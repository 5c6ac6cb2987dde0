from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("devices", "0004_boards"), ("iotsupport", "0004_boards")]

    operations = [
        migrations.CreateModel(
            name="WaitingBoard",
            fields=[],
            options={
                "verbose_name": "waiting board",
                "proxy": True,
                "default_permissions": [],
                "indexes": [],
                "constraints": [],
            },
            bases=("iotsupport.board",),
        ),
    ]
