import os
import sys
from functools import partial

from django.db import migrations

from assets.identity import as_fields
from assets.images import inspect
from iotsupport.characters import fold
from iotsupport.mirror import MirrorError, mirror_storage
from iotsupport.mirror.files import CHUNK_BYTES


def recognise(apps, schema_editor):
    """Say of each version what it is, once for all that have the same bytes.

    What is no image is told by its first bytes; an image is read once, as every start does with those that are served.
    What it warns of is said of the bytes alone: what was before which version was settled long ago.
    """
    using = schema_editor.connection.alias
    Asset, Version = apps.get_model("assets", "Asset"), apps.get_model("assets", "HistoricalAsset")
    rows = [model._base_manager.using(using) for model in [Asset, Version]]
    digests = {sha256 for manager in rows for sha256 in manager.order_by().values_list("sha256", flat=True).distinct()}
    for sha256 in sorted(digests):
        inspection = look_at(apps, using, sha256)
        if inspection is None or (inspection.image is None and not inspection.warnings):
            continue
        fields = as_fields(inspection.image, list(inspection.warnings))
        for manager in rows:
            manager.filter(sha256=sha256).update(**fields)
        image = inspection.image
        if image is not None:
            for asset in rows[0].filter(sha256=sha256):
                said = [asset.filename, image.project, image.version, image.chip, image.idf_version]
                rows[0].filter(pk=asset.pk).update(folded=fold("\n".join(said)))


def look_at(apps, using, sha256):
    try:
        path = mirror_storage("blobs").path(sha256)
        if os.path.exists(path):
            with open(path, "rb") as file:
                return inspect(partial(os.pread, file.fileno()), os.fstat(file.fileno()).st_size)
    except (MirrorError, OSError) as error:
        sys.stderr.write(f"What is kept as {sha256} cannot be read, and not be recognised: {error}\n")
        return None
    return look_at_shared(apps, using, sha256)


def look_at_shared(apps, using, sha256):
    """Of bytes that another node has: in the database, in parts of one length, of which one is in memory at a time."""
    chunks = apps.get_model("assets", "SharedChunk")._base_manager.using(using).filter(sha256=sha256)
    count = chunks.count()
    if not count:
        return None
    kept: dict[int, bytes] = {}

    def part(number):
        if number not in kept:
            kept.clear()
            content = chunks.filter(number=number).values_list("content", flat=True).first()
            kept[number] = bytes(content or b"")
        return kept[number]

    def read(length, offset):
        found = b""
        while len(found) < length:
            number, start = divmod(offset + len(found), CHUNK_BYTES)
            more = part(number)[start : start + length - len(found)] if number < count else b""
            if not more:
                break
            found += more
        return found

    return inspect(read, (count - 1) * CHUNK_BYTES + len(part(count - 1)))


class Migration(migrations.Migration):
    dependencies = [("assets", "0005_firmware_identity")]

    operations = [
        migrations.RunPython(recognise, migrations.RunPython.noop, elidable=True),
    ]
