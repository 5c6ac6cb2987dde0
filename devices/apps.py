from django.apps import AppConfig


class DevicesConfig(AppConfig):
    name = "devices"
    verbose_name = "Devices"

    def ready(self) -> None:
        from devices import receivers  # noqa: F401
        from devices.metrics import ConfigCollector
        from iotsupport.metrics import facts

        facts.register(ConfigCollector())
