"""``python -m iotsupport.container.health``: ask the server how it is; exits with 0 where it is well."""

from __future__ import annotations

import http.client
import sys

from iotsupport import settings
from iotsupport.trial.run import EVERYWHERE

# Less than the health check of deploy/Dockerfile waits, which ends it without a word.
PATIENCE_SECONDS = 8


def main() -> int:
    """Print the answer, which the container's state shows, and return the exit code that health checks know."""
    connection = http.client.HTTPConnection(
        EVERYWHERE.get(settings.HOST, settings.HOST), settings.PORT, timeout=PATIENCE_SECONDS
    )
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        print(response.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"The server does not answer: {error}")
        return 1
    finally:
        connection.close()
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
