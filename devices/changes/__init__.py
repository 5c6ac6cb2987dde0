"""Many configurations are changed as safely as one.

Somebody chooses configurations and says what is to be done with each (``kinds.py``): a merge patch, another type, to
announce them again, to undo an earlier change of many, or texts that were given. Which ones is settled then
(``choosing.py``), as a list of MAC addresses: what comes to match later is not changed. The change is *planned*
(``planning.py``): for each configuration an item says what would become of it, with the digest of the text that the
plan saw. No new text is kept but the given ones: it is made anew wherever it is shown or written, from the same text.

People look at the plan (``pages.py``, ``api.py``), then have it *applied* (``applying.py``): in steps of a few, each
one transaction of configurations, versions and items, so that after any crash an item says what became of its
configuration. One whose text is another than the plan saw was changed by somebody else, and is left alone. *Undo* is a
change of its own, whose items lead from the version that was written to the one before it.

All but the smallest plans are work of the server's (``worker.py``): a thread of each process looks for a change that is
to be planned or applied, and takes it as a lease. Each step's transaction renews the lease, and is rolled back where it
was lost, or where somebody pressed *Stop*: so each step happens once, whichever process is killed or too slow.

A step takes the next items in the order of their MAC addresses. Whoever wants waves (some named ones first, a part a
day) gives items a wave, and lets a step take none of a wave that has not begun.
"""
