"""The mirror: files on disk that equal rows of the database.

New bytes are written and synced beside their place while the transaction is open, so that a full or read-only disk
refuses the save (``files``, for the models that ``rows`` describes). After the commit the file is made equal to what
its row says *then*: two saves may commit in one order and get there in the other (``after_commit``). ``comparison``
holds all rows against all files; ``nodes`` and ``following`` see to what another server saved. The mirror knows neither
the apps nor how files are served.
"""

# Under these names a landed migration imports them.
from iotsupport.mirror.files import MirrorError, mirror_storage

__all__ = ["MirrorError", "mirror_storage"]
