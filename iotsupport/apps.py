from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db import connection


class IotSupportConfig(AppConfig):
    name = "iotsupport"
    verbose_name = "IoT Support"

    def ready(self) -> None:
        from iotsupport import limits
        from iotsupport.checks import check_directories, check_environment, check_secret_key
        from iotsupport.signals import serving

        for check in [check_environment, check_directories, check_secret_key]:
            checks.register(check, "environment")
        limits.register(limits.LISTS)
        serving.connect(follow_other_nodes, dispatch_uid="iotsupport.follow_other_nodes")


def follow_other_nodes(**kwargs: Any) -> None:
    if connection.vendor == "postgresql":
        from iotsupport.nodes import Follower  # imports psycopg, which commands on SQLite do without

        Follower().start()
