from typing import Any

from django.apps import AppConfig


class DevicesConfig(AppConfig):
    name = "devices"
    verbose_name = "Devices"

    def ready(self) -> None:
        from devices import first_page, receivers  # noqa: F401 - connects them
        from devices.boards import Configurations
        from devices.changes import models as changes
        from devices.limits import LARGE_BODIES
        from devices.metrics import ConfigCollector
        from devices.types import models as types
        from devices.types import runner
        from devices.views import DOWNLOADS
        from iotsupport import housekeeping, limits
        from iotsupport.boards import configurations
        from iotsupport.first_page import parts
        from iotsupport.monitoring.metrics import database_metrics
        from iotsupport.serving import downloads
        from iotsupport.signals import serving

        configurations.register(Configurations())
        database_metrics.register(ConfigCollector())
        downloads.register(DOWNLOADS)
        parts.numbers.append(first_page.numbers)
        parts.arrivals.append(first_page.arrivals)
        limits.register(*LARGE_BODIES)
        housekeeping.registered += [changes.over, types.over]
        housekeeping.versioned.append(types.DeviceType)
        serving.connect(work_at_changes, dispatch_uid="devices.work_at_changes")
        serving.connect(runner.serve, dispatch_uid="devices.judge_by_types")


def work_at_changes(**kwargs: Any) -> None:
    from devices.changes.worker import Worker

    Worker().start()
