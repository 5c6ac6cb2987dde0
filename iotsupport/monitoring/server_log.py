"""What gunicorn itself says, written as LOG_FORMAT has it: also by the master, which configures nothing of Django's."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger

from iotsupport import settings
from iotsupport.monitoring import logs


class ServerLogger(Logger):
    """gunicorn's. ``post_fork`` in ``gunicorn.conf.py`` bounds it in workers, whom strangers make speak."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        if settings.LOG_FORMAT == logs.JSON:
            for handler in self.error_log.handlers:
                handler.setFormatter(logs.JsonFormatter(is_bounded=False))
