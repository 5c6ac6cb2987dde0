from django.apps import AppConfig
from django.core import checks


class IotSupportConfig(AppConfig):
    name = "iotsupport"
    verbose_name = "IoT Support"

    def ready(self) -> None:
        from iotsupport.checks import check_directories, check_environment, check_secret_key

        for check in [check_environment, check_directories, check_secret_key]:
            checks.register(check, "environment")
