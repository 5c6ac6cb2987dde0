import os
import sys
import unicodedata

from django.db import migrations, models, transaction

from assets.names import filename_problem
from iotsupport.characters import fold
from iotsupport.mirror import MirrorError, mirror_storage


def mend_names(apps, schema_editor):
    """Give each asset the one form of its name, without blanks at its ends, and what searches look at.

    Earlier versions keep the names that they had: so every start knows the file of the old name for one of its own,
    and removes it, on other nodes as well. Says which names it could not mend; those stay as they are.
    """
    Asset = apps.get_model("assets", "Asset")
    using = schema_editor.connection.alias
    assets = Asset._base_manager.using(using)
    taken = set(assets.values_list("filename", flat=True))
    moved = []
    for pk, filename in list(assets.order_by("pk").values_list("pk", "filename")):
        mended = unicodedata.normalize("NFC", filename).strip()
        if mended != filename:
            problem = "is another asset's" if mended in taken else filename_problem(mended)
            if problem:
                say(f"The asset {filename!a} (ID {pk}) keeps its name, since {mended!a} {problem}. {WHAT_TO_DO}")
                mended = filename
            else:
                say(f"The asset {filename!a} is called {mended!a} from now on.")
                moved.append((filename, mended))
                taken.add(mended)
        assets.filter(pk=pk).update(filename=mended, folded=fold(mended))
    transaction.on_commit(lambda: move_files(moved), using=using)


WHAT_TO_DO = "Devices still get it by its name. Upload it under another one, then delete this one."


def move_files(moved):
    """Take the files along. What cannot be moved now is made equal to its row at the next start."""
    storage = mirror_storage("assets")
    try:
        with storage.explained(), storage.lock():
            for old, new in moved:
                if storage.exists(old) and not storage.exists(new):
                    os.rename(storage.path(old), storage.path(new))
    except MirrorError as error:
        say(f"The files of renamed assets have their old names until the server starts: {error}")


def say(sentence):
    # Not logged: a log leaves out what is too much of one kind.
    sys.stderr.write(f"{sentence}\n")


class Migration(migrations.Migration):
    dependencies = [("assets", "0002_sharedchunk")]

    operations = [
        migrations.AddField("asset", "folded", models.TextField(default="", editable=False)),
        migrations.RunPython(mend_names, migrations.RunPython.noop, elidable=True),
    ]
