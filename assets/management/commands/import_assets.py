from __future__ import annotations

from assets.models import Asset
from iotsupport.management.importing import ImportCommand


class Command(ImportCommand):
    help = "Take over a directory of asset files, byte for byte."
    manager = Asset.objects
