import hashlib

from django.db import migrations

BATCH_ROWS = 1000


def make_boards(apps, schema_editor):
    """Make a row of each configuration's board, of which nothing is known yet."""
    using = schema_editor.connection.alias
    DeviceConfig, Board = apps.get_model("devices", "DeviceConfig"), apps.get_model("iotsupport", "Board")
    rows = DeviceConfig._base_manager.using(using).order_by("mac_address").values_list("mac_address", "content")
    last = ""
    while batch := list(rows.filter(mac_address__gt=last)[:BATCH_ROWS]):
        boards = (
            Board(
                mac_address=mac_address,
                config_sha256=hashlib.sha256(content.encode()).hexdigest(),
                state="never_fetched",
            )
            for mac_address, content in batch
        )
        # Some are there where somebody went back and forth; the next start makes them equal.
        Board.objects.using(using).bulk_create(boards, ignore_conflicts=True)
        last = batch[-1][0]


class Migration(migrations.Migration):
    dependencies = [("devices", "0003_order_of_versions"), ("iotsupport", "0004_boards")]

    operations = [migrations.RunPython(make_boards, migrations.RunPython.noop, elidable=True)]
