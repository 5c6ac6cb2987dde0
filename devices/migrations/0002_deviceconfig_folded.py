from django.db import migrations, models

from iotsupport.characters import fold

BATCH_ROWS = 1000


def fold_names(apps, schema_editor):
    """Give existing configurations what searches look at. The rows alone: no version, no file, no announcement."""
    DeviceConfig = apps.get_model("devices", "DeviceConfig")
    rows = DeviceConfig._base_manager.using(schema_editor.connection.alias).order_by("pk")
    last = 0
    while batch := list(rows.filter(pk__gt=last).values_list("pk", "device_name", "device_entity_id")[:BATCH_ROWS]):
        named = [(fold("\n".join(filter(None, names))), pk) for pk, *names in batch if any(names)]
        if named:
            with schema_editor.connection.cursor() as cursor:
                cursor.executemany("UPDATE devices_deviceconfig SET folded = %s WHERE id = %s", named)
        last = batch[-1][0]


class Migration(migrations.Migration):
    dependencies = [("devices", "0001_initial")]

    operations = [
        migrations.AddField("deviceconfig", "folded", models.TextField(default="", editable=False)),
        migrations.RunPython(fold_names, migrations.RunPython.noop, elidable=True),
    ]
