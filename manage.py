#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""

import gc
import os
import sys

from iotsupport import __version__


def main() -> None:
    # Ahead of Django, which would tell its own.
    if sys.argv[1:2] in (["version"], ["--version"]):
        print(__version__)
        return
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iotsupport.settings")
    # What is loaded now stays to the end: to look for garbage in it takes a third of a short command's time.
    gc.disable()
    from django.core.management import ManagementUtility

    class Utility(ManagementUtility):
        def autocomplete(self) -> None:
            """What comes first once Django is set up: to set it up here would do half of it twice."""
            gc.freeze()
            gc.enable()
            super().autocomplete()

    Utility(sys.argv).execute()


if __name__ == "__main__":
    main()
