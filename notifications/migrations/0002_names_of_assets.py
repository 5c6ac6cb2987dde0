import unicodedata

from django.db import migrations

ASSETS_TOPIC = "iotsupport/updates/assets"


def rename_debts(apps, schema_editor):
    """Let what is to be announced follow the assets that were renamed."""
    using = schema_editor.connection.alias
    debts = apps.get_model("notifications", "Debt")._base_manager.using(using).filter(topic=ASSETS_TOPIC)
    assets = apps.get_model("assets", "Asset")._base_manager.using(using)
    for debt in debts.order_by("pk"):
        mended = unicodedata.normalize("NFC", debt.filename).strip()
        if mended == debt.filename or assets.filter(filename=debt.filename).exists():
            continue
        other = debts.filter(filename=mended).first()
        if other is None:
            debts.filter(pk=debt.pk).update(filename=mended)
            continue
        if other.owed_since is None:
            debts.filter(pk=other.pk).update(owed_since=debt.owed_since)
        debts.filter(pk=debt.pk).delete()


class Migration(migrations.Migration):
    dependencies = [("notifications", "0001_initial"), ("assets", "0003_asset_folded")]

    operations = [migrations.RunPython(rename_debts, migrations.RunPython.noop, elidable=True)]
