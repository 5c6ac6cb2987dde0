"""What the boards did: when each was last seen, what it holds, what it says it runs, and which new one is asking.

The story, file by file. A download is answered: by the worker, by a view, or by nginx, which tells of it afterwards
(``listening.py``, ``nginx.py``). Each makes a ``CheckIn`` of it (``checkins.py``), which has what the board told, and
gives it to the collector (``collector.py``), which waits for nothing and never grows without bound. A thread of the
process writes what is new, in one statement a second at most (``writing.py``), into the table of boards
(``models.py``): one row for each MAC address, apart from its configuration. What a digest says of the firmware that
runs, an app finds that knows firmware (``firmware.py``). A save or a deletion of a configuration writes the same row in
its own transaction (``configurations.py``), so that a board is *current* or *behind* from the commit on.

Apps use this room; it knows none of them. What boards say of themselves is text of strangers: cleaned, escaped wherever
it is shown, and believed only as what they *say*.
"""
