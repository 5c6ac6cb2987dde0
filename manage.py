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
    import django
    from django.core.management import execute_from_command_line

    django.setup()
    gc.freeze()
    gc.enable()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
