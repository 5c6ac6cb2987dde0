from django.apps import AppConfig


class DevicesConfig(AppConfig):
    name = "devices"
    verbose_name = "Devices"

    def ready(self) -> None:
        from devices import receivers  # noqa: F401
        from devices.limits import LARGE_BODIES
        from devices.metrics import ConfigCollector
        from devices.views import FAST_DOWNLOADS
        from iotsupport import fast_downloads, limits
        from iotsupport.metrics import facts

        facts.register(ConfigCollector())
        fast_downloads.register(FAST_DOWNLOADS)
        limits.register(*LARGE_BODIES)
