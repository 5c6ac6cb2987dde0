"""What the operating system says of a directory, in a sentence for a person."""

from __future__ import annotations

import errno


def explain(error: OSError, label: str) -> str:
    """One sentence on why bytes could not be stored, and what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"No room is left on the disk of the {label} directory. Free some space there, then try again."
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return f"The {label} directory cannot be written. Make it writable for the server's user, then try again."
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return f"The {label} directory is missing. Create it for the server's user, then try again."
    return f"The {label} directory cannot be used ({error.strerror}). Repair it, then try again."
