"""The mirror: files on disk that equal rows of the database.

``rows`` has both sides, the files and the models whose rows have one; ``settling`` makes files equal to their rows
after a commit; ``nodes`` and ``following`` do the same for what another server saved. It knows neither the apps nor how
files are served.
"""

# Under these names a landed migration imports them.
from iotsupport.mirror.rows import MirrorError, mirror_storage

__all__ = ["MirrorError", "mirror_storage"]
