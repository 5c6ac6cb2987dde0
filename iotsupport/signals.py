"""Signals: what the apps tell each other without knowing each other."""

from django.dispatch import Signal

# This process serves requests, as opposed to a command that ends when its work is done.
serving = Signal()

# A file is about to follow what another node saved. Sent by the model, with its ``filename``; each receiver returns
# what to call when the file is in place, or None.
following = Signal()
