from django.apps import AppConfig


class DevicesConfig(AppConfig):
    name = "devices"
    verbose_name = "Devices"

    def ready(self) -> None:
        from devices import receivers  # noqa: F401
        from devices.limits import LARGE_BODIES
        from devices.metrics import ConfigCollector
        from devices.views import FAST_DOWNLOADS
        from iotsupport import limits
        from iotsupport.monitoring.metrics import facts
        from iotsupport.serving import ahead_of_django

        facts.register(ConfigCollector())
        ahead_of_django.register(FAST_DOWNLOADS)
        limits.register(*LARGE_BODIES)
