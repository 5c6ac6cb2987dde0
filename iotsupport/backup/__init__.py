"""One archive of everything: the rows, the bytes of assets, the secret key. Made while the server runs.

An archive is a zip (``archive``): ``rows/<table>.jsonl``, a line for each row, as neither database has it;
``blobs/<SHA-256>``; ``secret_key``; and at its end ``manifest.json``, which says what each member must be. The zip's
comment has the SHA-256 of all bytes before it, so that none can be another.

``tables`` reads and writes rows by the migrations that a database, or an archive, says it has: so an archive of an
earlier version is understood (``upgrading``), and a database can be backed up before it is migrated. ``writing`` makes
an archive: the rows at one moment, then the bytes that they name, while nobody may remove any. ``reading`` trusts
nothing in one; ``checking`` looks at all of it. ``restoring`` puts bytes first, which harm nobody, then all rows in one
transaction; what follows from them is made up for by the next start (``following``). ``models`` remembers it.

The apps are known by what a model says that keeps bytes (``kept``), and by ``restored``, a signal.
"""
