"""Call what all processes together do once in a time a throttle. The table keeps its name, so no row moves."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("iotsupport", "0004_boards"),
    ]

    operations = [
        migrations.AlterModelTable("Turn", "iotsupport_turn"),
        migrations.RenameModel("Turn", "Throttle"),
        migrations.AlterModelOptions("Throttle", {"default_permissions": ()}),
    ]
