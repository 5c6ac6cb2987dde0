"""Signals: what the apps tell each other without knowing each other."""

from django.dispatch import Signal

# This process serves requests, as opposed to a command that ends when its work is done.
serving = Signal()

# Rows were written without ``post_save`` of each, and their files get new bytes after the commit. Sent by the model, in
# the transaction, with ``filenames`` and ``using``.
saved_together = Signal()

# A file is about to follow what another node saved. Sent by the model, with its ``filename``; each receiver returns
# what to call with its name in a list when the file is in place, or None.
following = Signal()

# Files are to be announced that did not change. Sent by their model, in a transaction, with ``filenames``; a receiver
# returns whether they will be.
announcing_again = Signal()

# All rows came out of a backup, in the transaction that is open. A server does nothing by itself about what was under
# way then: each receiver strikes its own of that, and returns a sentence that says what it was, or None.
restored = Signal()
