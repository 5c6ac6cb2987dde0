"""Which boards the demo has, and which of them are not there: it shows every state that a board can have.

Known to ``make demo``, which says to ``simulate_devices`` who is off, and to the commands that make the sample data.
"""

MAC_ADDRESSES = [f"02-de-30-00-00-{number:02x}" for number in range(1, 25)]

# Nobody has plugged these in yet.
NEVER_FETCHED = MAC_ADDRESSES[20:22]
# Off, and its configuration was edited since: see create_demo_boards.
BEHIND = MAC_ADDRESSES[22]
# Off for days.
SILENT = MAC_ADDRESSES[23]

OFF = [*NEVER_FETCHED, BEHIND, SILENT]

# One more than there are: it has no configuration, and asks for one.
SIMULATED = len(MAC_ADDRESSES) - len(OFF) + 1
